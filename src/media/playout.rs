//! Prompts into frames: a queue of sounds at any rates becomes 20 ms frames at the leg's rate. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::frame::{Frame, SampleRate};
use super::leg::{LegEvent, Sound};
use super::resample::Resampler;

/// How long a frame lasts, in milliseconds.
pub const FRAME_MS: u64 = 20;
/// Sounds that may wait. One more is refused at once (`PlayEnded { completed: false }`): a dialogue never queues so many.
pub const PLAY_QUEUE_SOUNDS: usize = 64;

/// A prompt that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub id: u64,
    /// Played to its end.
    pub completed: bool,
}

impl From<Ended> for LegEvent {
    fn from(Ended { id, completed }: Ended) -> Self {
        Self::PlayEnded { id, completed }
    }
}

/// The queue of one direction.
pub struct Playout {
    rate: SampleRate,
    queue: VecDeque<Item>,
    // Resampled audio that is due; `ends` tells after how many of its samples which prompt is over.
    ready: Vec<i16>,
    ends: VecDeque<(usize, u64)>,
    refused: Vec<Ended>,
}

struct Item {
    id: u64,
    sound: Arc<Sound>,
    at: usize,
    // Where the sound has another rate than the frames.
    resampler: Option<Resampler>,
}

impl std::fmt::Debug for Playout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Playout({} Hz, {} sounds wait)", self.rate.hz(), self.queue.len())
    }
}

impl Playout {
    /// Frames will come at `rate`.
    pub fn new(rate: SampleRate) -> Self {
        Self { rate, queue: VecDeque::new(), ready: Vec::new(), ends: VecDeque::new(), refused: Vec::new() }
    }

    /// Queues a sound behind what is playing.
    pub fn play(&mut self, id: u64, sound: Arc<Sound>) {
        if self.queue.len() >= PLAY_QUEUE_SOUNDS {
            self.refused.push(Ended { id, completed: false });
            return;
        }
        let resampler = (sound.rate != self.rate).then(|| Resampler::new(sound.rate, self.rate));
        self.queue.push_back(Item { id, sound, at: 0, resampler });
    }

    /// Drops all; each dropped prompt is told by [`Playout::take_refused`] or here, in order.
    pub fn stop(&mut self) -> Vec<Ended> {
        self.ready.clear();
        let begun = self.ends.drain(..).map(|(_, id)| id);
        let waiting = self.queue.drain(..).map(|item| item.id);
        let mut ended: Vec<Ended> = begun.chain(waiting).map(|id| Ended { id, completed: false }).collect();
        ended.append(&mut self.refused);
        ended
    }

    /// Whether there is nothing to play.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty() && self.ends.is_empty()
    }

    /// The next 20 ms, and the prompts that end with it. `None`: nothing to play. The last frame of the last prompt is filled up
    /// with silence; a prompt that follows another begins in the same frame.
    pub fn next_frame(&mut self) -> (Option<Frame>, Vec<Ended>) {
        let mut ended = std::mem::take(&mut self.refused);
        if self.is_idle() {
            return (None, ended);
        }
        let wanted = self.rate.samples_in(Duration::from_millis(FRAME_MS));
        while self.ready.len() < wanted && self.fill() {}
        let taken = wanted.min(self.ready.len());
        let mut samples: Vec<i16> = self.ready.drain(..taken).collect();
        let any = !samples.is_empty();
        samples.resize(wanted, 0);
        for (after, _) in &mut self.ends {
            *after = after.saturating_sub(taken);
        }
        while let Some((0, id)) = self.ends.front().copied() {
            self.ends.pop_front();
            ended.push(Ended { id, completed: true });
        }
        (any.then_some(Frame { rate: self.rate, samples }), ended)
    }

    /// Resamples 20 ms more of the first sound; false if there is none.
    fn fill(&mut self) -> bool {
        let Some(item) = self.queue.front_mut() else { return false };
        let step = item.sound.rate.samples_in(Duration::from_millis(FRAME_MS)).max(1);
        let piece = item.sound.samples.get(item.at..).unwrap_or_default();
        let piece = piece.get(..step).unwrap_or(piece);
        match &mut item.resampler {
            Some(resampler) => resampler.push(piece, &mut self.ready),
            None => self.ready.extend_from_slice(piece),
        }
        item.at += piece.len();
        if item.at >= item.sound.samples.len() {
            if let Some(resampler) = &mut item.resampler {
                resampler.finish(&mut self.ready);
            }
            self.ends.push_back((self.ready.len(), item.id));
            self.queue.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sound(rate: SampleRate, samples: Vec<i16>) -> Arc<Sound> {
        Arc::new(Sound { rate, samples })
    }

    fn drain(playout: &mut Playout) -> (Vec<i16>, Vec<Ended>) {
        let (mut out, mut ended) = (Vec::new(), Vec::new());
        while !playout.is_idle() {
            let (frame, over) = playout.next_frame();
            ended.extend(over);
            if let Some(frame) = frame {
                assert_eq!(frame.samples.len(), 160);
                out.extend(frame.samples);
            }
        }
        (out, ended)
    }

    #[test]
    fn sounds_follow_each_other_without_a_gap_and_their_ends_are_told_with_their_last_frame() {
        let mut playout = Playout::new(SampleRate::HZ_8000);
        playout.play(1, sound(SampleRate::HZ_8000, vec![1; 200]));
        playout.play(2, sound(SampleRate::HZ_8000, vec![2; 200]));
        let (frame, ended) = playout.next_frame();
        assert_eq!((frame.unwrap().samples, ended), (vec![1; 160], vec![]));
        let (frame, ended) = playout.next_frame();
        assert_eq!(
            (frame.unwrap().samples, ended),
            ([vec![1; 40], vec![2; 120]].concat(), vec![Ended { id: 1, completed: true }])
        );
        let (frame, ended) = playout.next_frame();
        assert_eq!(
            (frame.unwrap().samples, ended),
            ([vec![2; 80], vec![0; 80]].concat(), vec![Ended { id: 2, completed: true }])
        );
        assert_eq!(playout.next_frame(), (None, vec![]));
    }

    #[test]
    fn stopping_tells_every_prompt_once_and_a_new_one_can_be_played() {
        let mut playout = Playout::new(SampleRate::HZ_8000);
        for id in 0..3 {
            playout.play(id, sound(SampleRate::HZ_16000, vec![9; 3_200]));
        }
        playout.next_frame();
        let stopped: Vec<u64> = playout
            .stop()
            .iter()
            .map(|e| {
                assert!(!e.completed);
                e.id
            })
            .collect();
        assert_eq!(stopped, [0, 1, 2]);
        assert!(playout.is_idle() && playout.stop().is_empty());
        playout.play(7, sound(SampleRate::HZ_8000, vec![4; 160]));
        assert_eq!(drain(&mut playout), (vec![4; 160], vec![Ended { id: 7, completed: true }]));
    }

    #[test]
    fn a_stop_between_the_resampling_of_the_end_and_its_playing_is_no_completion() {
        let mut playout = Playout::new(SampleRate::HZ_8000);
        playout.play(1, sound(SampleRate::HZ_8000, vec![1; 300]));
        playout.next_frame();
        playout.fill();
        assert_eq!(playout.stop(), [Ended { id: 1, completed: false }]);
    }

    #[test]
    fn an_empty_sound_ends_at_once_and_too_many_are_refused() {
        let mut playout = Playout::new(SampleRate::HZ_8000);
        playout.play(1, sound(SampleRate::HZ_8000, Vec::new()));
        assert_eq!(playout.next_frame(), (None, vec![Ended { id: 1, completed: true }]));
        for id in 0..=64 {
            playout.play(id, sound(SampleRate::HZ_8000, vec![1; 160]));
        }
        assert_eq!(playout.next_frame().1, [Ended { id: 64, completed: false }, Ended { id: 0, completed: true }]);
    }

    proptest! {
        #[test]
        fn every_prompt_ends_once_in_order_and_nothing_is_cut(lengths in prop::collection::vec((0usize..2_000, 0usize..3), 1..8)) {
            let mut playout = Playout::new(SampleRate::HZ_8000);
            let rates = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000];
            let mut expected = 0;
            for (id, (length, rate)) in lengths.iter().enumerate() {
                let rate = rates[*rate];
                expected += length.div_ceil(rate.hz() as usize / 8_000);
                playout.play(id as u64, sound(rate, vec![3_000; *length]));
            }
            let (out, ended) = drain(&mut playout);
            prop_assert_eq!(out.len(), expected.div_ceil(160) * 160);
            let ids: Vec<u64> = ended.iter().filter(|e| e.completed).map(|e| e.id).collect();
            prop_assert_eq!(ids, (0..lengths.len() as u64).collect::<Vec<_>>());
        }
    }
}
