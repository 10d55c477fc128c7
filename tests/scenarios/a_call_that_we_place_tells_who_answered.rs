//! A call that we place tells who answered before anything is said: a person, a machine and when it listens, a line that is busy, nobody. Real SIP
//! and RTP on this machine, the telephone at the other end is our own; the voices are the fixtures', heard by the network of the service.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use voicepay::app::outbound::{NotAnswered, Reached, who_answered};
use voicepay::app::voice_activity;
use voicepay::config::Config;
use voicepay::media::config::MediaConfig;
use voicepay::media::frame::SampleRate;
use voicepay::media::leg::{LegCommand, LegEvent, Sound};
use voicepay::sip::dial::place;
use voicepay::sip::{DialOptions, SipConfig, Unanswered, listen};
use voicepay::speech::pickup::{Answerer, Sign};

use crate::support::recording;

/// A telephone that answers every call with the same sound.
struct Telephone {
    uri: String,
    stop: CancellationToken,
    answering: JoinHandle<()>,
}

impl Telephone {
    async fn that_says(says: Vec<i16>, sip: SipConfig) -> Self {
        let stop = CancellationToken::new();
        let (legs, mut arriving) = mpsc::channel(4);
        let sip = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), ..sip };
        let media = MediaConfig { port_min: 43_000, port_max: 43_999, ..MediaConfig::default() };
        let listener = listen(sip, media, legs, stop.clone()).await.unwrap();
        let uri = format!("sip:+447700900123@{}", listener.local_addr);
        let sound = Arc::new(Sound { rate: SampleRate::HZ_8000, samples: says });
        let answering = tokio::spawn(async move {
            while let Some(mut leg) = arriving.recv().await {
                let sound = Arc::clone(&sound);
                tokio::spawn(async move {
                    leg.commands.send(LegCommand::Play { id: 1, audio: sound }).await.unwrap();
                    while !matches!(leg.events.recv().await, Some(LegEvent::Ended(_)) | None) {}
                });
            }
            listener.ended().await;
        });
        Self { uri, stop, answering }
    }

    async fn called(&self) -> Reached {
        let speech = Config::default().speech;
        let options = DialOptions {
            early_media: true,
            timeout: Duration::from_millis(1_500),
            ..DialOptions::new(&self.uri, "+448081570000")
        };
        match place(options).await {
            Ok(placed) => who_answered(placed, speech.pickup, voice_activity(speech.vad).unwrap()).await,
            Err(error) => Reached::Unanswered(NotAnswered::from(&error)),
        }
    }

    async fn put_away(self) {
        self.stop.cancel();
        self.answering.await.unwrap();
    }
}

fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * 8]
}

fn said(name: &str) -> Vec<i16> {
    recording(name).samples.clone()
}

fn beep(hz: f64, ms: u32) -> Vec<i16> {
    (0..ms * 8).map(|i| ((std::f64::consts::TAU * hz * f64::from(i) / 8_000.0).sin() * 6_000.0) as i16).collect()
}

#[tokio::test]
async fn a_person_says_a_word_and_has_the_line() {
    let telephone = Telephone::that_says([silence(500), said("alice/yes")].concat(), SipConfig::default()).await;
    match telephone.called().await {
        Reached::Person(line) => {
            assert_eq!(line.pickup.sign, Sign::ShortGreeting);
            let (leg, ear) = line.into_parts();
            assert_eq!(ear.pickup().map(|p| p.by), Some(Answerer::Person));
            drop(leg);
        }
        other => panic!("{other:?}"),
    }
    telephone.put_away().await;
}

#[tokio::test]
async fn a_machine_is_known_by_its_greeting_and_listens_after_its_beep() {
    let says = [silence(300), said("machine/standard"), silence(400), beep(1_000.0, 500), silence(500)].concat();
    let telephone = Telephone::that_says(says, SipConfig::default()).await;
    match telephone.called().await {
        Reached::Other(mut line) => {
            assert_eq!((line.pickup.by, line.pickup.sign), (Answerer::Machine, Sign::LongGreeting), "{:?}", line.pickup);
            let beep = line.beep().await.unwrap();
            assert!((beep.hz - 1_000.0).abs() < 5.0 && beep.lasted_ms.abs_diff(500) <= 60, "{beep:?}");
            assert!(beep.ended_ms > line.pickup.after_ms, "{beep:?}");
        }
        other => panic!("{other:?}"),
    }
    telephone.put_away().await;
}

#[tokio::test]
async fn who_is_busy_or_does_not_answer_is_told_with_the_status() {
    let alone = SipConfig { max_calls_per_called: 1, ..SipConfig::default() };
    let busy = Telephone::that_says(silence(20_000), alone).await;
    let first = place(DialOptions::new(&busy.uri, "+448081570001")).await.unwrap();
    match busy.called().await {
        Reached::Unanswered(error) => assert_eq!((error.why, error.status), (Unanswered::Busy, Some(486)), "{}", error.said),
        other => panic!("{other:?}"),
    }
    drop(first);
    busy.put_away().await;
    let ringing = Telephone::that_says(Vec::new(), SipConfig { ring_ms: 60_000, ..SipConfig::default() }).await;
    match ringing.called().await {
        Reached::Unanswered(error) => assert_eq!((error.why, error.status), (Unanswered::NoAnswer, None), "{}", error.said),
        other => panic!("{other:?}"),
    }
    ringing.put_away().await;
}

#[tokio::test]
async fn a_line_on_which_nothing_is_heard_is_no_persons() {
    let telephone = Telephone::that_says(silence(20_000), SipConfig::default()).await;
    match telephone.called().await {
        Reached::Other(line) => assert_eq!((line.pickup.by, line.pickup.sign), (Answerer::Silent, Sign::Silence)),
        other => panic!("{other:?}"),
    }
    telephone.put_away().await;
}
