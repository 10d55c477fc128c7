//! What may happen in a call, at random: for the properties.

use proptest::prelude::*;

use super::*;

/// One thing that a hostile or a well-behaved edge may do.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// What the call waits for, in the way most likely to go on.
    Helpful,
    Wait(u64),
    Started,
    AppCall,
    Identity(bool),
    Key(u8),
    SpeechStarted,
    Utterance(u32),
    NoSpeech,
    Voice(f32),
    Drawn(u8),
    /// Voice and words of an answer to fresh digits.
    Challenge(f32, f32),
    Number(f32),
    Keyed(bool),
    /// A proof out of thin air.
    ForgedNumber(f32),
    Answer(u8, Option<f32>),
    CodeSent(u8),
    /// Voice and words of a spoken code.
    CodeScored(f32, f32),
    CodeChecked(u8),
    Granted(bool),
    Deleted(bool),
    Invite(bool),
    EnrolAdded(u8),
    EnrolStored(bool),
    PromptDone(u32),
    Payment(u8),
    Transferred(bool),
    Deadline(usize),
    Trouble(u8),
    HungUp,
    ServiceTrouble,
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let cosine = prop_oneof![Just(0.9f32), Just(0.5), Just(0.1), Just(f32::NAN)];
    let ratio = prop_oneof![Just(9.0f32), Just(0.0), Just(-9.0), Just(f32::NAN), Just(f32::INFINITY)];
    let (cosine2, ratio2) = (cosine.clone(), ratio.clone());
    prop_oneof![
        70 => Just(Act::Helpful),
        3 => (0u64..8_000).prop_map(Act::Wait),
        1 => Just(Act::Started),
        1 => Just(Act::AppCall),
        1 => any::<bool>().prop_map(Act::Identity),
        2 => (1u8..16).prop_map(Act::Key),
        1 => Just(Act::SpeechStarted),
        2 => (0u32..9_000).prop_map(Act::Utterance),
        1 => Just(Act::NoSpeech),
        3 => cosine.clone().prop_map(Act::Voice),
        1 => (0u8..4).prop_map(Act::Drawn),
        2 => (cosine.clone(), ratio.clone()).prop_map(|(v, c)| Act::Challenge(v, c)),
        3 => ratio.clone().prop_map(Act::Number),
        1 => any::<bool>().prop_map(Act::Keyed),
        2 => ratio.prop_map(Act::ForgedNumber),
        3 => (0u8..4, proptest::option::of(cosine)).prop_map(|(a, c)| Act::Answer(a, c)),
        1 => (0u8..4).prop_map(Act::CodeSent),
        2 => (cosine2, ratio2).prop_map(|(v, c)| Act::CodeScored(v, c)),
        2 => (0u8..4).prop_map(Act::CodeChecked),
        1 => any::<bool>().prop_map(Act::Granted),
        1 => any::<bool>().prop_map(Act::Deleted),
        1 => any::<bool>().prop_map(Act::Invite),
        1 => (0u8..6).prop_map(Act::EnrolAdded),
        1 => any::<bool>().prop_map(Act::EnrolStored),
        1 => (0u32..12).prop_map(Act::PromptDone),
        1 => (0u8..6).prop_map(Act::Payment),
        1 => any::<bool>().prop_map(Act::Transferred),
        2 => (0usize..DeadlineKind::ALL.len()).prop_map(Act::Deadline),
        1 => (0u8..20).prop_map(Act::Trouble),
    ]
}

/// Rare endings, so that most runs get far.
pub(super) fn ending() -> impl Strategy<Value = Act> {
    prop_oneof![Just(Act::HungUp), Just(Act::ServiceTrouble), Just(Act::Key(10)), Just(Act::Key(0))]
}

/// Terms, and whether the caller is here to have a voice deleted. With a card that is bound it is an app's page that calls.
pub(super) fn asks() -> impl Strategy<Value = (Asks, bool)> {
    let flag = |weight| proptest::bool::weighted(weight);
    let parts = (flag(0.03), flag(0.3), flag(0.3), flag(0.2), flag(0.4), flag(0.5), flag(0.15), flag(0.25));
    parts.prop_map(|(denied, fresh_digits, code, others, mandate, offer, deleting, bound)| {
        let (mandate, bound) = ((mandate && !bound).then(|| card(1).id), bound.then(|| card(1).id));
        let deleting = deleting && bound.is_none();
        let offer_mandate = offer.then(|| Money::new(5_000, Currency::Usd).unwrap());
        (Asks { denied, fresh_digits, code, others, mandate, bound, offer_mandate }, deleting)
    })
}
