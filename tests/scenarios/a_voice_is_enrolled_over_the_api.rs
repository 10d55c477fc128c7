//! A payee's systems enrol a voice from recordings over the API of the process that takes calls; whoever it belongs to pays by it then. Recordings that make
//! no template are refused by name, and nothing is changed.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voicepay::api::{Key, Scope};
use voicepay::app::App;
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::dialogue::CallVerdict;
use voicepay::ids::{ApiKeyId, AuditId, Tenant};
use voicepay::media::config::MediaConfig;
use voicepay::store::{ApiKeyRecord, AuditRecord};

use crate::support::{ALICE, World, fixtures, hear, hung_up, say, story, voices};

/// The service with calls and the API, and a key.
struct Beside {
    world: World,
    app: App,
    key: String,
}

impl Beside {
    async fn calls() -> Self {
        let world = World::with_alice(|_| ()).await;
        let mut config = world.config.clone();
        config.sip.listen = "127.0.0.1:0".parse().unwrap();
        config.media = MediaConfig { port_min: 46_000, port_max: 46_999, ..MediaConfig::default() };
        config.api.listen = Some("127.0.0.1:0".parse().unwrap());
        config.api.max_upload_bytes = 4_000_000;
        let app = App::start(&config, &voices(&config), Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
        let key = Key::fresh(&SystemEntropy);
        let (now, id) = (SystemClock.now(), ApiKeyId::fresh(&SystemEntropy));
        let audit = AuditRecord {
            id: AuditId::fresh(&SystemEntropy),
            at: now,
            actor: "test".into(),
            action: "api_key.created".into(),
            subject: id.to_string(),
            detail: json!({}),
        };
        let scopes = Scope::ALL.iter().map(|s| s.as_str().to_owned()).collect();
        let (tenant, name) = (Tenant::default(), "test".into());
        let record = ApiKeyRecord { id, tenant, name, scopes, created_at: now, expires_at: None, revoked_at: None };
        app.office().store.add_api_key(&record, &key.digest(&app.office().vault), &audit).await.unwrap();
        Self { world, app, key: key.reveal().to_owned() }
    }

    fn address(&self) -> SocketAddr {
        self.app.api_address().unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let once = AuditId::fresh(&SystemEntropy);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {once}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        let (mut stream, mut all) = (TcpStream::connect(self.address()).await.unwrap(), Vec::new());
        stream.write_all(head.as_bytes()).await.unwrap();
        // Refused by its head alone, it is not read to its end.
        let _closed = stream.write_all(body.as_bytes()).await;
        let _reset = stream.read_to_end(&mut all).await;
        let text = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    async fn enrol(&self, recordings: &[Vec<u8>]) -> (u16, Value) {
        let all: Vec<_> = recordings.iter().map(|file| STANDARD.encode(file)).collect();
        let body = json!({ "consent_by": "J. Clerk, form 118", "recordings": all }).to_string();
        self.ask("POST", &format!("/v1/customers/{}/enrolments", self.world.customer), &body).await
    }

    async fn voice(&self) -> Value {
        self.ask("GET", &format!("/v1/customers/{}/voice", self.world.customer), "").await.1
    }
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(format!("{name}.wav"))).unwrap()
}

fn files(names: [&str; 3]) -> Vec<Vec<u8>> {
    names.map(file).to_vec()
}

/// The same samples with another head.
fn wav(channels: u16, hz: u32, samples: &[i16]) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec { channels, sample_rate: hz, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
    writer.finalize().unwrap();
    file.into_inner()
}

#[tokio::test]
async fn and_its_owner_pays_by_it() {
    let beside = Beside::calls().await;
    let (status, voice) = beside.enrol(&files(["alice/enrol_1", "alice/enrol_2", "alice/enrol_3"])).await;
    assert_eq!((status, &voice["enrolled"], &voice["customer"]), (201, &json!(true), &json!(beside.world.customer)), "{voice}");
    assert!(voice["model"].is_string() && voice["since"].is_string(), "{voice}");
    let mut fields: Vec<_> = voice.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        ["customer", "enrolled", "follows_since", "invited_until", "model", "since"],
        "that there is one, never what it is"
    );
    let (_, trail) = beside.ask("GET", &format!("/v1/audit?subject={}", beside.world.customer), "").await;
    let row = trail["data"].as_array().unwrap().iter().find(|r| r["action"] == "voice.enrolled").unwrap().clone();
    assert!(row["actor"].as_str().unwrap().starts_with("api:key_") && row["detail"]["recordings"] == 3, "{row}");
    let steps = [hear(4_000), say("alice/card"), hear(4_000), say("alice/yes"), hung_up()];
    let (record, _) = beside.world.call(ALICE, steps).await;
    assert_eq!(record.verdict, CallVerdict::Paid, "\n{}", story(&record));
    // What was uploaded lies nowhere.
    let kept = beside.world.kept_bytes();
    let sample = &file("alice/enrol_1")[4_000..4_064];
    assert!(!kept.windows(sample.len()).any(|w| w == sample), "a recording lies in a file");
    beside.app.stop().await;
}

#[tokio::test]
async fn and_what_makes_no_template_is_refused_by_name() {
    let beside = Beside::calls().await;
    let alice = || files(["alice/enrol_1", "alice/enrol_2", "alice/enrol_3"]);
    let instead = |n: usize, other: Vec<u8>| {
        let mut all = alice();
        all[n] = other;
        all
    };
    let tone: Vec<i16> = (0..16_000_i32).map(|n| if n / 40 % 2 == 0 { 8_000 } else { -8_000 }).collect();
    let mut cut_off = file("alice/enrol_2");
    cut_off.truncate(1_000);
    for (recordings, named) in [
        (instead(1, b"RIFF".to_vec()), "recording 2"),
        (instead(0, b"ID3 not a WAV at all".to_vec()), "recording 1"),
        (instead(1, cut_off), "recording 2"),
        (instead(2, wav(1, 11_025, &tone)), "11025 Hz"),
        (instead(2, wav(2, 16_000, &tone)), "2 channels"),
        (instead(0, wav(1, 16_000, &tone[..200])), "recording 1"),
        (instead(0, wav(1, 16_000, &tone[..1_600])), "recording 1"),
        (instead(1, wav(1, 16_000, &[0; 32_000])), "silent"),
        (instead(1, wav(1, 8_000, &vec![0; 8_000 * 121])), "at most"),
        (instead(2, file("bob/enrol_3")), "no voice template"),
        (alice()[..1].to_vec(), "no voice template"),
    ] {
        let (status, problem) = beside.enrol(&recordings).await;
        assert_eq!((status, &problem["type"]), (409, &json!("urn:voicepay:problem:conflict")), "{named}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{named}: {problem}");
        assert_eq!(beside.voice().await["enrolled"], json!(false), "{named}");
    }
    let long = vec![vec![0_u8; 3_200_000]];
    let (status, problem) = beside.enrol(&long).await;
    assert_eq!((status, &problem["type"]), (413, &json!("urn:voicepay:problem:too-large")), "{problem}");
    beside.app.stop().await;
}
