//! Persons and machines of the fixtures, tones made here. All through μ-law, with energy alone, so that no model is needed;
//! `voicepay eval pickup` measures on real speech and with the network.

use std::path::Path;

use super::super::tone::testing::{noise, tones};
use super::*;
use crate::media::g711::Law;
use crate::media::wav::read_wav;

fn recording(name: &str) -> Vec<i16> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("audio-fixtures").join(name).with_extension("wav");
    read_wav(&path).unwrap().samples
}

fn hush(ms: u32) -> Vec<i16> {
    noise(ms, -65.0, ms + 1)
}

/// What the ear makes of `early` before the answer and of `answered` after it.
fn heard(early: &[Vec<i16>], answered: &[Vec<i16>]) -> PickupEar {
    let rate = SampleRate::HZ_8000;
    let mut ear = PickupEar::new(PickupConfig::default(), VoiceActivity::default(), rate);
    let push = |ear: &mut PickupEar, parts: &[Vec<i16>]| {
        let line = Law::Mu.decode(&Law::Mu.encode(&parts.concat()));
        // Frames of no size in particular: what is heard does not depend on them.
        line.chunks(177).for_each(|samples| ear.push(&Frame { rate, samples: samples.to_vec() }));
    };
    push(&mut ear, early);
    if answered.is_empty() {
        return ear;
    }
    ear.answered();
    push(&mut ear, answered);
    ear
}

fn verdict(answered: &[Vec<i16>]) -> Option<(Answerer, Sign)> {
    heard(&[], answered).pickup().map(|p| (p.by, p.sign))
}

fn ringing(times: usize) -> Vec<Vec<i16>> {
    (0..times).flat_map(|_| [tones(1_000, &[425.0], -15.0), hush(4_000)]).collect()
}

#[test]
fn a_word_and_silence_are_a_person() {
    for who in ["alice/yes", "bob/no", "dave/yes", "mallory/no", "erin/yes", "alice/cancel"] {
        let ear = heard(&ringing(1), &[hush(600), recording(who), hush(2_000)]);
        let found = ear.pickup().unwrap();
        assert_eq!((found.by, found.sign), (Answerer::Person, Sign::ShortGreeting), "{who}: {found:?}");
        let spoken_by = 600 + u32::try_from(recording(who).len() / 8).unwrap();
        assert!(found.after_ms < spoken_by + 1_200, "{who}: {found:?}");
        assert!(ear.beep().is_none());
    }
}

#[test]
fn whoever_speaks_on_is_a_machine_and_the_beep_says_when_it_listens() {
    for who in ["alice/card", "bob/counting", "dave/card"] {
        for hz in [440.0, 640.0, 1_000.0, 1_950.0] {
            for lasting in [200, 500, 1_200] {
                let greeting = [hush(300), recording(who), hush(400)].concat();
                let ear = heard(&[], &[greeting.clone(), tones(lasting, &[hz], -16.0), hush(1_000)]);
                let found = ear.pickup().unwrap();
                assert_eq!((found.by, found.sign), (Answerer::Machine, Sign::LongGreeting), "{who}: {found:?}");
                let beep = ear.beep().unwrap_or_else(|| panic!("{who}: no beep of {hz} Hz, {lasting} ms"));
                let ended = u32::try_from(greeting.len() / 8).unwrap() + lasting;
                assert!((f64::from(beep.hz) - hz).abs() < 5.0, "{beep:?}");
                assert!(
                    beep.lasted_ms.abs_diff(lasting) <= 40 && beep.ended_ms.abs_diff(ended) <= 40,
                    "{lasting}, {ended}: {beep:?}"
                );
            }
        }
    }
}

/// A machine that says a word, waits, and beeps: the verdict for a person is taken back.
#[test]
fn a_beep_takes_the_word_of_a_person_back() {
    let short = [hush(300), recording("alice/yes"), hush(1_500)].concat();
    assert_eq!(verdict(std::slice::from_ref(&short)), Some((Answerer::Person, Sign::ShortGreeting)));
    let beeped = [short, tones(400, &[1_000.0], -16.0), hush(300)];
    assert_eq!(verdict(&beeped), Some((Answerer::Machine, Sign::Beep)));
    // Nothing takes a machine's back.
    let long = [recording("alice/card"), hush(3_000), recording("alice/yes"), hush(2_000)];
    assert_eq!(verdict(&long), Some((Answerer::Machine, Sign::LongGreeting)));
}

#[test]
fn what_a_network_says_in_tones_is_heard_before_and_after_the_answer() {
    let special: Vec<Vec<i16>> =
        [950.0, 1_400.0, 1_800.0].iter().map(|hz| tones(330, &[*hz], -18.0)).chain([hush(1_000)]).collect();
    let north_american: Vec<Vec<i16>> = [(913.8, 276), (1_370.6, 276), (1_776.7, 380)]
        .iter()
        .flat_map(|(hz, ms)| [tones(*ms, &[*hz], -20.0), hush(20)])
        .chain([hush(1_000)])
        .collect();
    let busy = |hz: &[f64], on: u32, off: u32| (0..5).flat_map(|_| [tones(on, hz, -18.0), hush(off)]).collect::<Vec<_>>();
    let said = |sign| Some((Answerer::Network, sign));
    for (tones, sign) in [
        (special, Sign::SpecialInformationTone),
        (north_american, Sign::SpecialInformationTone),
        (busy(&[425.0], 500, 500), Sign::BusyTone),
        (busy(&[425.0], 240, 240), Sign::BusyTone),
        (busy(&[400.0], 375, 375), Sign::BusyTone),
        (busy(&[480.0, 620.0], 500, 500), Sign::BusyTone),
        (busy(&[480.0, 620.0], 250, 250), Sign::BusyTone),
    ] {
        let early = heard(&[vec![hush(500)], tones.clone()].concat(), &[]);
        assert_eq!(early.pickup().map(|p| (p.by, p.sign)), said(sign), "before the answer");
        let after = heard(&[], &[vec![hush(500)], tones].concat());
        assert_eq!(after.pickup().map(|p| (p.by, p.sign)), said(sign), "after the answer");
        assert!(after.beep().is_none(), "{:?}", after.beep());
    }
}

#[test]
fn ringing_is_nobody() {
    let british: Vec<Vec<i16>> = (0..4)
        .flat_map(|_| [tones(400, &[400.0, 450.0], -18.0), hush(200), tones(400, &[400.0, 450.0], -18.0), hush(2_000)])
        .collect();
    let american: Vec<Vec<i16>> = (0..3).flat_map(|_| [tones(2_000, &[440.0, 480.0], -19.0), hush(4_000)]).collect();
    for rings in [ringing(3), british, american] {
        let early = heard(&rings, &[]);
        assert_eq!(early.pickup(), None, "before the answer");
        // Some telephone systems answer first and ring then.
        let after = heard(&[], &rings);
        assert_eq!(after.pickup().map(|p| p.by), Some(Answerer::Unknown), "{:?}", after.pickup());
        assert!(after.beep().is_none());
    }
}

#[test]
fn a_fax_is_a_machine_and_a_silent_line_is_nobody() {
    assert_eq!(verdict(&[hush(300), tones(3_000, &[2_100.0], -14.0), hush(500)]), Some((Answerer::Machine, Sign::FaxTone)));
    assert_eq!(verdict(&[hush(6_000)]), Some((Answerer::Silent, Sign::Silence)));
    assert_eq!(verdict(&[vec![0; 6_000 * 8]]), Some((Answerer::Silent, Sign::Silence)));
    // A click is nobody either.
    let mut click = hush(6_000);
    click[8_000..8_080].fill(20_000);
    assert_eq!(verdict(&[click]), Some((Answerer::Silent, Sign::Silence)));
    // Nor is a line that sends nothing at all.
    let mut ear = heard(&[], &[]);
    ear.answered();
    assert_eq!((ear.pickup(), ear.at_last().by), (None, Answerer::Silent));
}

#[test]
fn no_verdict_falls_before_the_answer_and_time_counts_from_it() {
    let announced = [[hush(400), recording("alice/yes"), hush(2_000)].concat()];
    assert_eq!(heard(&announced, &[]).pickup(), None, "an announcement before the answer is no person");
    let found = heard(&announced, &announced).pickup().unwrap();
    assert!(found.by == Answerer::Person && found.after_ms < 2_500, "{found:?}");
}

#[test]
fn other_rates_are_brought_to_the_telephones() {
    let rate = SampleRate::HZ_16000;
    let mut ear = PickupEar::new(PickupConfig::default(), VoiceActivity::default(), rate);
    ear.answered();
    let at_8k = [recording("alice/card"), hush(300), tones(400, &[1_000.0], -16.0), hush(500)].concat();
    let sound = crate::media::leg::Sound { rate: SampleRate::HZ_8000, samples: at_8k }.at(rate);
    sound.samples.chunks(320).for_each(|samples| ear.push(&Frame { rate, samples: samples.to_vec() }));
    assert_eq!(ear.pickup().map(|p| p.by), Some(Answerer::Machine));
    assert!(ear.beep().is_some_and(|beep| (beep.hz - 1_000.0).abs() < 5.0), "{:?}", ear.beep());
}

#[test]
fn limits_that_cannot_work_are_refused_by_name() {
    let usual = PickupConfig::default();
    assert!(usual.check().is_ok());
    for (config, key) in [
        (PickupConfig { greeting_max_ms: 0, ..usual }, "pickup.greeting_max_ms"),
        (PickupConfig { after_greeting_ms: 100, ..usual }, "pickup.after_greeting_ms"),
        (PickupConfig { silence_ms: 0, ..usual }, "pickup.silence_ms"),
        (PickupConfig { deadline_ms: 5_000, ..usual }, "pickup.deadline_ms"),
        (PickupConfig { beep_wait_ms: 1, ..usual }, "pickup.beep_wait_ms"),
    ] {
        assert_eq!(config.check().unwrap_err().0, key);
    }
}
