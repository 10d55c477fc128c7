//! Legs without sockets: a service and a simulated phone joined by one paced task, at any sample rate. Works on paused
//! time. It proves that nobody beyond this room depends on packets or on 8 kHz.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::conceal::Concealer;
use super::frame::{Frame, SampleRate};
use super::leg::{FarEnd, Key, Leg, LegCommand, LegEnd, LegEvent, LegInfo, TransferNews, pair};
use super::outbox::{Outbox, Undelivered};
use super::playout::{FRAME_MS, Playout};
use super::send::KEY_QUEUE_KEYS;
use super::telephone_event::{KEY_GAP_MS, KEY_TONE_MS};
use crate::clock::{Entropy, SeededEntropy};

/// What the line does to the frames between the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineOptions {
    /// Share of frames lost in each direction, 0 to 1; they are concealed. Keys are never lost, as on a real line they hardly
    /// are.
    pub loss: f64,
    /// Which ones: the same seed, the same losses.
    pub seed: u64,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { loss: 0.0, seed: 1 }
    }
}

/// The two ends of a call.
#[derive(Debug)]
pub struct Line {
    /// For the service.
    pub service: Leg,
    /// For the simulated phone: what it plays, the service hears.
    pub phone: Leg,
    /// Done when the call is over.
    pub task: JoinHandle<LineReport>,
}

/// What remains of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineReport {
    /// Frames lost, both directions.
    pub frames_lost: u64,
    /// Frames that a side was too slow to take, both directions.
    pub frames_dropped: u64,
}

/// Joins a service and a phone at `rate` (which replaces `info.rate`). Each side hears a 20 ms frame every 20 ms of
/// tokio's time; when one hangs up, or drops its leg, the other gets `Ended(LegEnd::Caller)`: the other side hung up.
pub fn connect(info: LegInfo, rate: SampleRate, options: LineOptions) -> Line {
    let info = LegInfo { rate, ..info };
    let (service, service_far) = pair(info.clone());
    let (phone, phone_far) = pair(info);
    let (service_commands, service_side) = Side::new(service_far, rate);
    let (phone_commands, phone_side) = Side::new(phone_far, rate);
    let call = Call {
        service: service_side,
        phone: phone_side,
        options,
        entropy: SeededEntropy::new(options.seed),
        frames_lost: 0,
        held: false,
    };
    let task = tokio::spawn(call.run(service_commands, phone_commands));
    Line { service, phone, task }
}

/// Live frames that wait to be heard.
const SPEAK_QUEUE_FRAMES: usize = 5;

/// One side: what it says, and what it hears.
struct Side {
    outbox: Outbox,
    playout: Playout,
    keys: VecDeque<Key>,
    // Live audio: what waits is the newest.
    spoken: VecDeque<Frame>,
    // It has put the other side on hold.
    holds: bool,
    // Packet times until the key that is down, and the gap after it, are over.
    key_frames: u64,
    hears: Concealer,
}

/// One side is gone; the other hears why.
struct Over;

impl From<Undelivered> for Over {
    fn from(_: Undelivered) -> Self {
        Self
    }
}

impl Side {
    fn new(far: FarEnd, rate: SampleRate) -> (mpsc::Receiver<LegCommand>, Self) {
        let hears = Concealer::new(rate);
        let side = Self {
            outbox: Outbox::new(far.events),
            playout: Playout::new(rate),
            keys: VecDeque::new(),
            spoken: VecDeque::new(),
            holds: false,
            key_frames: 0,
            hears,
        };
        (far.commands, side)
    }

    fn command(&mut self, command: Option<LegCommand>) -> Result<(), Over> {
        match command {
            Some(LegCommand::Play { id, audio }) => self.playout.play(id, audio),
            Some(LegCommand::StopPlaying) => {
                for ended in self.playout.stop() {
                    self.outbox.must_arrive(ended.into())?;
                }
            }
            Some(LegCommand::SendKey(key)) => {
                if self.keys.len() < KEY_QUEUE_KEYS {
                    self.keys.push_back(key);
                }
            }
            Some(LegCommand::Speak(frame)) => {
                self.spoken.push_back(frame);
                if self.spoken.len() > SPEAK_QUEUE_FRAMES {
                    self.spoken.pop_front();
                }
            }
            Some(LegCommand::Hold) => self.holds = true,
            Some(LegCommand::Resume) => self.holds = false,
            // There is nobody between the two ends who could do it.
            Some(LegCommand::Transfer { .. }) => {
                self.outbox.must_arrive(LegEvent::Transfer(TransferNews::Refused { status: 501 }))?;
            }
            Some(LegCommand::HangUp) | None => return Err(Over),
        }
        Ok(())
    }

    /// What it says in this packet time. As over RTP a key takes the place of audio, which waits.
    fn say(&mut self) -> Result<(Option<Key>, Option<Frame>), Over> {
        let mut pressed = None;
        if self.key_frames == 0 {
            pressed = self.keys.pop_front();
            self.key_frames = if pressed.is_some() { u64::from(KEY_TONE_MS + KEY_GAP_MS) / FRAME_MS } else { 0 };
        }
        if self.key_frames > 0 {
            self.key_frames -= 1;
            return Ok((pressed, None));
        }
        if let Some(live) = self.spoken.pop_front() {
            return Ok((None, Some(live)));
        }
        let (frame, ended) = self.playout.next_frame();
        for ended in ended {
            self.outbox.must_arrive(ended.into())?;
        }
        Ok((None, frame))
    }
}

struct Call {
    service: Side,
    phone: Side,
    options: LineOptions,
    entropy: SeededEntropy,
    frames_lost: u64,
    held: bool,
}

/// Who ended it.
#[derive(Clone, Copy, PartialEq)]
enum Gone {
    Service,
    Phone,
}

impl Call {
    async fn run(
        mut self,
        mut from_service: mpsc::Receiver<LegCommand>,
        mut from_phone: mpsc::Receiver<LegCommand>,
    ) -> LineReport {
        let frame = Duration::from_millis(FRAME_MS);
        let mut ticks = tokio::time::interval_at(Instant::now() + frame, frame);
        // Both sides hear every frame of the call, late if need be: there is no wire that a burst could harm.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let gone = loop {
            let done = tokio::select! {
                biased;
                command = from_service.recv() => self.service.command(command).map_err(|_| Gone::Service),
                command = from_phone.recv() => self.phone.command(command).map_err(|_| Gone::Phone),
                _ = ticks.tick() => self.tick(),
            };
            if let Err(gone) = done {
                break gone;
            }
        };
        let frames_dropped = self.service.outbox.frames_dropped() + self.phone.outbox.frames_dropped();
        let end = |side| (gone != side).then_some(LegEnd::Caller);
        let unplayed = |side: &mut Side| side.playout.stop().into_iter().map(LegEvent::from);
        let (of_service, of_phone) = (unplayed(&mut self.service), unplayed(&mut self.phone));
        tokio::join!(
            self.service.outbox.finish(of_service, end(Gone::Service)),
            self.phone.outbox.finish(of_phone, end(Gone::Phone)),
        );
        LineReport { frames_lost: self.frames_lost, frames_dropped }
    }

    /// The phone may put the service on hold: then nothing goes either way, and what would be played waits.
    fn tick(&mut self) -> Result<(), Gone> {
        if self.phone.holds != self.held {
            self.held = self.phone.holds;
            let news = if self.held { LegEvent::Held } else { LegEvent::Resumed };
            self.service.outbox.must_arrive(news).map_err(|_| Gone::Service)?;
        }
        if self.held {
            return Ok(());
        }
        let (key, frame) = self.service.say().map_err(|_| Gone::Service)?;
        let lost = self.loses();
        hear(&mut self.phone, key, frame, lost).map_err(|_| Gone::Phone)?;
        let (key, frame) = self.phone.say().map_err(|_| Gone::Phone)?;
        let lost = self.loses();
        hear(&mut self.service, key, frame, lost).map_err(|_| Gone::Service)
    }

    fn loses(&mut self) -> bool {
        const PARTS: u32 = 1_000_000;
        let entropy: &dyn Entropy = &self.entropy;
        let lost = f64::from(entropy.below(PARTS)) < self.options.loss * f64::from(PARTS);
        self.frames_lost += u64::from(lost);
        lost
    }
}

/// A packet time at the hearing side: always one frame, of silence if the other side says nothing.
fn hear(side: &mut Side, key: Option<Key>, frame: Option<Frame>, lost: bool) -> Result<(), Undelivered> {
    if let Some(key) = key {
        side.outbox.must_arrive(LegEvent::Key(key))?;
    }
    let rate = side.hears.rate();
    let length = rate.samples_in(Duration::from_millis(FRAME_MS));
    let samples = if lost {
        side.hears.missing(length).0
    } else {
        side.hears.heard(frame.map_or_else(|| vec![0; length], |frame| frame.samples))
    };
    side.outbox.frame(Frame { rate, samples })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::media::leg::{Attestation, CallerClaim, Sound};

    fn info() -> LegInfo {
        LegInfo {
            protocol_id: "line".into(),
            caller: CallerClaim::Unverified("+15550100".into()),
            attestation: Attestation::Absent,
            called: "pay".into(),
            peer: "in process".into(),
            trunk: "line".into(),
            transport: "none",
            secure: false,
            setup_ms: 0,
            rate: SampleRate::HZ_8000,
            codec: "L16",
        }
    }

    fn tone(rate: SampleRate, ms: u64) -> Arc<Sound> {
        let count = rate.samples_in(Duration::from_millis(ms));
        let samples = (0..count).map(|n| (9_000.0 * (n as f64 * 700.0 / f64::from(rate.hz())).sin()) as i16).collect();
        Arc::new(Sound { rate, samples })
    }

    #[derive(Default)]
    struct Told {
        heard: Vec<i16>,
        keys: Vec<(Key, Duration)>,
        ended: Vec<(u64, bool)>,
        end: Option<LegEnd>,
    }

    async fn listen(leg: &mut Leg, time: Duration) -> Told {
        let mut told = Told::default();
        let begun = Instant::now();
        while let Ok(Some(event)) = tokio::time::timeout_at(begun + time, leg.events.recv()).await {
            assert!(told.end.is_none(), "something came after the end");
            match event {
                LegEvent::Frame(frame) => {
                    assert_eq!(frame.rate, leg.info.rate);
                    assert_eq!(frame.samples.len(), frame.rate.samples_in(Duration::from_millis(20)));
                    told.heard.extend(frame.samples);
                }
                LegEvent::Key(key) => told.keys.push((key, begun.elapsed())),
                LegEvent::PlayEnded { id, completed } => told.ended.push((id, completed)),
                LegEvent::Held | LegEvent::Resumed | LegEvent::Answered | LegEvent::Transfer(_) => {}
                LegEvent::Ended(end) => told.end = Some(end),
            }
        }
        told
    }

    const RATES: [SampleRate; 3] = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000];

    #[tokio::test(start_paused = true)]
    async fn both_sides_hear_each_other_sample_for_sample_at_every_rate() {
        for rate in RATES {
            let mut line = connect(info(), rate, LineOptions::default());
            assert_eq!((line.service.info.rate, line.phone.info.rate), (rate, rate));
            let (prompt, speech) = (tone(rate, 510), tone(rate, 290));
            line.service.commands.send(LegCommand::Play { id: 1, audio: prompt.clone() }).await.unwrap();
            line.phone.commands.send(LegCommand::Play { id: 8, audio: speech.clone() }).await.unwrap();
            let time = Duration::from_millis(1_010);
            let (service, phone) = tokio::join!(listen(&mut line.service, time), listen(&mut line.phone, time));
            assert_eq!(phone.heard.len(), rate.samples_in(Duration::from_secs(1)));
            assert_eq!(phone.heard[..prompt.samples.len()], prompt.samples);
            assert_eq!(service.heard[..speech.samples.len()], speech.samples);
            assert!(phone.heard[prompt.samples.len()..].iter().all(|s| *s == 0));
            assert_eq!((service.ended, phone.ended), (vec![(1, true)], vec![(8, true)]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_of_another_rate_arrives_at_the_lines_rate() {
        let mut line = connect(info(), SampleRate::HZ_48000, LineOptions::default());
        line.service.commands.send(LegCommand::Play { id: 1, audio: tone(SampleRate::HZ_16000, 400) }).await.unwrap();
        let phone = listen(&mut line.phone, Duration::from_millis(410)).await;
        let expected = tone(SampleRate::HZ_48000, 400);
        let worst = phone.heard[1_000..18_000].iter().zip(&expected.samples[1_000..]).map(|(a, b)| (a - b).abs()).max();
        assert!(worst < Some(60), "{worst:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_arrive_once_in_order_and_at_the_pace_of_a_hand() {
        let mut line = connect(info(), SampleRate::HZ_48000, LineOptions { loss: 0.5, seed: 3 });
        let keys: Vec<Key> = "12*#".chars().filter_map(Key::from_char).collect();
        for key in &keys {
            line.phone.commands.send(LegCommand::SendKey(*key)).await.unwrap();
        }
        line.service.commands.send(LegCommand::SendKey(Key::Digit(0))).await.unwrap();
        let time = Duration::from_secs(2);
        let (service, phone) = tokio::join!(listen(&mut line.service, time), listen(&mut line.phone, time));
        assert_eq!(service.keys.iter().map(|(k, _)| *k).collect::<Vec<_>>(), keys);
        assert_eq!(phone.keys.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [Key::Digit(0)]);
        for pair in service.keys.windows(2) {
            assert_eq!(pair[1].1 - pair[0].1, Duration::from_millis(260));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_cuts_the_prompt_and_tells_so() {
        let mut line = connect(info(), SampleRate::HZ_16000, LineOptions::default());
        for id in [1, 2] {
            line.service.commands.send(LegCommand::Play { id, audio: tone(SampleRate::HZ_16000, 1_000) }).await.unwrap();
        }
        let _ = listen(&mut line.phone, Duration::from_millis(110)).await;
        line.service.commands.send(LegCommand::StopPlaying).await.unwrap();
        let time = Duration::from_millis(200);
        let (service, phone) = tokio::join!(listen(&mut line.service, time), listen(&mut line.phone, time));
        assert_eq!(service.ended, [(1, false), (2, false)]);
        assert!(phone.heard.iter().all(|s| *s == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_hangs_up_the_other_hears_it_last() {
        for phone_hangs_up in [true, false] {
            let line = connect(info(), SampleRate::HZ_48000, LineOptions::default());
            let (mut goes, mut stays) = if phone_hangs_up { (line.phone, line.service) } else { (line.service, line.phone) };
            stays.commands.send(LegCommand::Play { id: 5, audio: tone(SampleRate::HZ_8000, 500) }).await.unwrap();
            assert_eq!(listen(&mut stays, Duration::from_millis(100)).await.end, None);
            goes.commands.send(LegCommand::HangUp).await.unwrap();
            let told = listen(&mut stays, Duration::from_secs(1)).await;
            assert_eq!((told.end, told.ended), (Some(LegEnd::Caller), vec![(5, false)]));
            assert_eq!(listen(&mut goes, Duration::from_secs(1)).await.end, None, "its channel closes");
            line.task.await.unwrap();
        }
        let line = connect(info(), SampleRate::HZ_8000, LineOptions::default());
        let mut service = line.service;
        drop(line.phone);
        assert_eq!(listen(&mut service, Duration::from_secs(1)).await.end, Some(LegEnd::Caller));
    }

    #[tokio::test(start_paused = true)]
    async fn loss_is_seeded_and_made_up_for() {
        let mut runs = Vec::new();
        for seed in [4, 4, 5] {
            let mut line = connect(info(), SampleRate::HZ_48000, LineOptions { loss: 0.1, seed });
            line.phone.commands.send(LegCommand::Play { id: 1, audio: tone(SampleRate::HZ_48000, 2_000) }).await.unwrap();
            let time = Duration::from_millis(2_010);
            let (service, _) = tokio::join!(listen(&mut line.service, time), listen(&mut line.phone, time));
            let quiet = service.heard.chunks(960).skip(5).filter(|f| f.iter().all(|s| s.abs() < 50)).count();
            assert_eq!(quiet, 0, "a lost frame is not silence");
            drop((line.service, line.phone));
            runs.push((line.task.await.unwrap().frames_lost, service.heard));
        }
        assert!(runs[0] == runs[1] && runs[0].1 != runs[2].1);
        assert!((8..35).contains(&runs[0].0), "{} of 200", runs[0].0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_listen_loses_audio_but_no_key() {
        let mut line = connect(info(), SampleRate::HZ_8000, LineOptions::default());
        tokio::time::sleep(Duration::from_secs(10)).await;
        line.phone.commands.send(LegCommand::SendKey(Key::Pound)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = listen(&mut line.service, Duration::from_millis(50)).await;
        assert_eq!(told.keys.len(), 1);
        assert!(told.heard.len() < 160 * 130);
        drop((line.service, line.phone));
        assert!(line.task.await.unwrap().frames_dropped > 800);
    }
}
