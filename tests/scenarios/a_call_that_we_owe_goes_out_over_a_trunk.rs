//! The whole service places a call that it owes: over a trunk, by real SIP and RTP on this machine. A voicemail hears nothing at all; a person who picks
//! up decides. What became of it stands with what is owed and in the detail records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voicepay::app::App;
use voicepay::clock::{SystemClock, SystemEntropy};
use voicepay::config::Config;
use voicepay::ids::ApprovalId;
use voicepay::media::config::MediaConfig;
use voicepay::payment::{Approval, ApprovalState};
use voicepay::phone::{PhoneReport, Script, Step, run_script};
use voicepay::sip::signalling::Transport;
use voicepay::sip::trunk::config::TrunkConfig;
use voicepay::sip::{SipConfig, listen};
use voicepay::store::{Callback, CallbackState, papers};

use crate::support::{World, hear, hung_up, repeat_while_asked, say, voices};

/// A telephone that answers one call and does this.
struct Telephone {
    address: String,
    answered: oneshot::Receiver<PhoneReport>,
    stop: CancellationToken,
    listening: JoinHandle<()>,
}

impl Telephone {
    async fn that_does(steps: Vec<Step>) -> Self {
        let stop = CancellationToken::new();
        let (legs, mut arriving) = mpsc::channel(4);
        let sip = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), ..SipConfig::default() };
        let media = MediaConfig { port_min: 44_000, port_max: 44_999, ..MediaConfig::default() };
        let listener = listen(sip, media, legs, stop.clone()).await.unwrap();
        let address = listener.local_addr.to_string();
        let (tell, answered) = oneshot::channel();
        let listening = tokio::spawn(async move {
            if let Some(leg) = arriving.recv().await {
                let report = run_script(leg, &Script::new(steps), |_| ()).await;
                let _nobody_asks = tell.send(report);
            }
            listener.ended().await;
        });
        Self { address, answered, stop, listening }
    }
}

/// Alice has to agree to a payment, and her telephone is answered so.
async fn called(steps: Vec<Step>) -> (World, ApprovalId, Callback, PhoneReport, Vec<serde_json::Value>) {
    let telephone = Telephone::that_does(steps).await;
    let world = World::with_alice_enrolled().await;
    let records = tempfile::tempdir().unwrap();
    let mut config: Config = world.config.clone();
    config.sip.listen = "127.0.0.1:0".parse().unwrap();
    config.sip.trunks = vec![TrunkConfig {
        name: "carrier".into(),
        transport: Transport::Udp,
        private: true,
        target: Some(telephone.address.clone()),
        options_ping_s: 0,
        ..TrunkConfig::default()
    }];
    config.media = MediaConfig { port_min: 45_000, port_max: 45_999, ..MediaConfig::default() };
    config.ops.cdr_dir = Some(records.path().to_owned());
    config.callbacks.trunk = "carrier".into();
    config.callbacks.from = "+448081570000".into();
    config.callbacks.poll_ms = 200;
    let app = App::start(&config, &voices(&config), Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
    let (pat, _) = world.neighbour("Pat Example", "+447700900789", "10042002").await;
    world.agreements().add_supervision(&pat, &world.customer, BTreeMap::new(), "test").await.unwrap();
    let request = world.request_of(&pat, 25_000).await;
    let approval = world.agreements().request_approval(&request).await.unwrap().unwrap().id;
    let report = tokio::time::timeout(Duration::from_secs(120), telephone.answered).await.expect("Alice is called").unwrap();
    let owed = tried(&world, &approval).await;
    app.stop().await;
    telephone.stop.cancel();
    telephone.listening.await.unwrap();
    (world, approval, owed, report, lines(records.path()))
}

/// What became of the try, once it is written down.
async fn tried(world: &World, approval: &ApprovalId) -> Callback {
    for _ in 0..200 {
        let owed = world.office.store.callbacks_of(approval).await.unwrap().remove(0);
        if owed.last_outcome.is_some() {
            return owed;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing was written of the try");
}

fn lines(dir: &Path) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    files.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What was said in the call, for the message of a failed assertion.
async fn told(world: &World, owed: &Callback) -> String {
    let Some(id) = &owed.last_call else { return "no call was written down".to_owned() };
    world
        .office
        .store
        .call(id)
        .await
        .unwrap()
        .map_or_else(|| "that call is not there".to_owned(), |call| format!("{:#}", call.record))
}

#[tokio::test]
async fn a_voicemail_hears_nothing_and_is_called_again_later() {
    let (world, approval, owed, report, records) = called(vec![say("machine/standard"), hung_up()]).await;
    assert_eq!((owed.state, owed.tries, owed.last_outcome.as_deref()), (CallbackState::Waiting, 1, Some("machine")));
    assert!(owed.due_at.since(owed.created_at) >= Duration::from_secs(300), "{owed:?}");
    assert_eq!(report.heard_speech, Duration::ZERO, "not a word");
    let approval: Approval = papers::read(&*world.office.store, approval.as_str()).await.unwrap().unwrap();
    assert_eq!(approval.state, ApprovalState::Open);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&record["direction"], &record["verdict"], &record["call"]), (&"outbound".into(), &"machine".into(), &().into()));
}

#[tokio::test]
async fn a_person_who_picks_up_says_the_digits_and_decides() {
    // "Yes?", the digits that she hears, as often as she is asked (a busy machine may garble them), and her answer to the question after them.
    let steps = vec![say("alice/yes"), hear(4_000), repeat_while_asked("alice"), say("alice/yes"), hung_up()];
    let (world, approval, owed, report, records) = called(steps).await;
    assert_eq!(
        (owed.state, owed.last_outcome.as_deref()),
        (CallbackState::Over, Some("agreed")),
        "{:?}\n{}",
        report.failure,
        told(&world, &owed).await
    );
    let approval: Approval = papers::read(&*world.office.store, approval.as_str()).await.unwrap().unwrap();
    assert_eq!(approval.state, ApprovalState::Open, "Pat has said nothing yet");
    assert!(approval.parties.iter().all(|p| p.said.as_ref().is_some_and(|said| said.yes)));
    let call = world.office.store.call(owed.last_call.as_ref().unwrap()).await.unwrap().unwrap();
    assert_eq!((call.verdict.as_deref(), call.customer), (Some("Agreed"), Some(world.customer.clone())));
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&record["direction"], &record["verdict"]), (&"outbound".into(), &"Agreed".into()));
    assert!(!serde_json::to_string(&records).unwrap().contains("7700900123"), "numbers are masked");
}
