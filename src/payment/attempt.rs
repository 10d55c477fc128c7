//! One try at charging an intent: `Prepared → Dispatched → Succeeded | Declined | NeedsReconciliation → (… | Reversed)`.
//!
//! `Dispatched` is committed before a byte leaves for the acquirer; found after a crash it means "perhaps charged". From there only
//! the acquirer's word about *our* reference moves it on: an error while asking changes nothing, "not found" means nothing before a
//! grace time has passed, and an approval of another amount or currency is no success.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId};
use crate::money::Money;

/// One try at charging an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which one. Its text is also *our reference* at the acquirer.
    pub id: AttemptId,
    /// For which intent.
    pub intent: IntentId,
    /// What is to be charged; what the acquirer reports must equal it.
    pub amount: Money,
    /// Where it stands.
    pub state: AttemptState,
    /// Counts the changes; a store refuses to write over a version that it did not read.
    pub version: i64,
}

/// Where an attempt stands; each state holds only what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AttemptState {
    /// Written down; the acquirer has heard nothing.
    Prepared,
    /// The acquirer has perhaps heard of it, perhaps charged it.
    Dispatched {
        /// When this was committed, before the first byte left.
        at: Timestamp,
        /// The idempotency key that goes with every send.
        key: GatewayKey,
        /// Of what was sent; a re-send must hash the same.
        hash: RequestHash,
        /// How often it was sent, the first included.
        sends: u32,
        /// When it was last sent.
        last_sent: Timestamp,
    },
    /// Sent, and the outcome is in doubt.
    NeedsReconciliation {
        /// When it was first dispatched.
        at: Timestamp,
        /// The idempotency key.
        key: GatewayKey,
        /// Of what was sent.
        hash: RequestHash,
        /// How often it was sent.
        sends: u32,
        /// When it was last sent.
        last_sent: Timestamp,
        /// What is in doubt.
        doubt: Doubt,
    },
    /// Charged. Terminal.
    Succeeded {
        /// When we recorded it.
        at: Timestamp,
        /// What the acquirer calls the charge.
        gateway_reference: String,
    },
    /// Not charged, and it won't be. Terminal.
    Declined {
        /// When we recorded it.
        at: Timestamp,
        /// Why.
        reason: DeclineReason,
    },
    /// Charged and taken back by the acquirer. Terminal.
    Reversed {
        /// When we recorded it.
        at: Timestamp,
    },
}

impl AttemptState {
    /// As a row stores it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Dispatched { .. } => "dispatched",
            Self::NeedsReconciliation { .. } => "needs_reconciliation",
            Self::Succeeded { .. } => "succeeded",
            Self::Declined { .. } => "declined",
            Self::Reversed { .. } => "reversed",
        }
    }

    /// Whether nothing can change it any more.
    pub fn terminal(&self) -> bool {
        match self {
            Self::Prepared | Self::Dispatched { .. } | Self::NeedsReconciliation { .. } => false,
            Self::Succeeded { .. } | Self::Declined { .. } | Self::Reversed { .. } => true,
        }
    }
}

/// The idempotency key at the acquirer: the same for every send of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayKey(pub String);

/// SHA-256 in hex over what is sent, with the card's keyed digest in place of its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestHash(pub String);

/// What an acquirer is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Authorise and capture in one.
    Charge,
    /// Reserve on the card; a capture or a void ends it.
    Authorise,
    /// Take what was authorised, or a part of it.
    Capture,
    /// Give back what was authorised and not captured.
    Void,
    /// Give back what was captured, or a part of it.
    Refund,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 5] = [Self::Charge, Self::Authorise, Self::Capture, Self::Void, Self::Refund];

    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Authorise => "authorise",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == text)
    }
}

/// What the payer may do about a decline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// The same again later may go through.
    Retry,
    /// The issuer wants more proof of the payer first.
    StepUp,
    /// The same again will not go through: another card.
    Stop,
}

/// Why a charge was declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// Not enough money.
    InsufficientFunds,
    /// The card's date has passed.
    ExpiredCard,
    /// The issuer gives no reason.
    DoNotHonour,
    /// The acquirer does not know the card.
    UnknownCard,
    /// Reported lost or stolen.
    LostOrStolen,
    /// Above what the card may pay, or too often.
    LimitExceeded,
    /// The issuer wants more proof of the payer.
    NeedsAuthentication,
    /// The issuer could not be reached.
    IssuerUnavailable,
    /// The card may not pay for this.
    NotPermitted,
    /// The acquirer suspects fraud.
    SuspectedFraud,
    /// The amount or currency is none that the acquirer takes, or more than is left to capture or refund.
    InvalidAmount,
    /// The acquirer refused it for another reason.
    Other,
    /// It was never sent: the card was blocked, revoked, deleted or could not be unsealed.
    NotSent,
    /// The acquirer never received it.
    NeverReceived,
}

impl DeclineReason {
    /// What may be done about it.
    pub fn advice(self) -> Advice {
        match self {
            Self::InsufficientFunds | Self::LimitExceeded | Self::IssuerUnavailable | Self::NeverReceived => Advice::Retry,
            Self::NeedsAuthentication => Advice::StepUp,
            Self::ExpiredCard
            | Self::DoNotHonour
            | Self::UnknownCard
            | Self::LostOrStolen
            | Self::NotPermitted
            | Self::SuspectedFraud
            | Self::InvalidAmount
            | Self::Other
            | Self::NotSent => Advice::Stop,
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "insufficient funds",
            Self::ExpiredCard => "expired card",
            Self::DoNotHonour => "do not honour",
            Self::UnknownCard => "unknown card",
            Self::LostOrStolen => "lost or stolen",
            Self::LimitExceeded => "limit exceeded",
            Self::NeedsAuthentication => "the issuer wants more proof",
            Self::IssuerUnavailable => "the issuer can't be reached",
            Self::NotPermitted => "not permitted with this card",
            Self::SuspectedFraud => "suspected fraud",
            Self::InvalidAmount => "the acquirer does not take this amount",
            Self::Other => "declined by the acquirer",
            Self::NotSent => "never sent: the card was no longer usable",
            Self::NeverReceived => "never received by the acquirer",
        }
    }
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "doubt", rename_all = "snake_case")]
pub enum Doubt {
    /// No answer, or one that says nothing about the charge.
    NoAnswer,
    /// Approved, but another amount or currency: a person has to look unless the acquirer corrects itself.
    Mismatch {
        /// What the acquirer says it charged.
        charged: Money,
    },
}

/// What the acquirer says, in answer to a charge or to a question about our reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BankWord {
    /// Charged this much.
    Approved { charged: Money, gateway_reference: String },
    /// Not charged.
    Declined(DeclineReason),
    /// Charged and taken back.
    Reversed,
    /// It has it and has not decided.
    StillWorking,
    /// It knows no such reference (only ever an answer to a question).
    NotFound,
    /// No answer that says anything: a time-out, a broken connection, a 5xx, nonsense.
    Silence,
}

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptEvent {
    /// It is about to be sent for the first time.
    Dispatch { key: GatewayKey, hash: RequestHash },
    /// It is about to be sent again; must be the same bytes.
    Resend { hash: RequestHash },
    /// It can't be sent at all (the card is gone). Only before it was sent.
    Abandon,
    /// The acquirer answered a charge that was sent.
    Answer(BankWord),
    /// The acquirer answered a question about our reference. An error while asking changes nothing.
    Found(BankWord),
}

/// What else must change together with the attempt, in the same transaction where it is a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Post the pending transfer.
    PostPending,
    /// Void the pending transfer.
    VoidPending,
    /// The intent is paid: settle the request, issue the receipt.
    Settle,
    /// The intent failed: give the request free again.
    Release,
    /// Send the same bytes again.
    SendAgain,
    /// Ask the acquirer about our reference later.
    AskLater,
    /// The acquirer contradicts what stands: a person must look. Changes no money by itself.
    Conflict,
}

/// Bounds of reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcilePolicy {
    /// "Not found" counts for nothing before this much time after the last send.
    pub not_found_grace: Duration,
    /// The same bytes may be sent again within this time after the first dispatch; the acquirer keeps keys no longer.
    pub resend_window: Duration,
    /// How often an attempt may be sent, the first time included.
    pub max_sends: u32,
}

/// One step: consumes the attempt, returns it as it stands after `event`, and what must happen with it. Its version counts up only
/// if its state changed. A terminal attempt never changes: what agrees with it is a duplicate and has no effects, what
/// contradicts it is a `Conflict`.
pub fn step(
    policy: &ReconcilePolicy,
    now: Timestamp,
    attempt: Attempt,
    event: AttemptEvent,
) -> Result<(Attempt, Vec<Effect>), TransitionError> {
    let Attempt { id, intent, amount, state, version } = attempt;
    let before = state.clone();
    let (state, effects) = match state {
        AttemptState::Prepared => from_prepared(now, event)?,
        AttemptState::Dispatched { at, key, hash, sends, last_sent } => {
            from_sent(policy, now, amount, Sent { at, key, hash, sends, last_sent, doubt: None }, event)?
        }
        AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent, doubt } => {
            from_sent(policy, now, amount, Sent { at, key, hash, sends, last_sent, doubt: Some(doubt) }, event)?
        }
        AttemptState::Succeeded { .. } | AttemptState::Declined { .. } | AttemptState::Reversed { .. } => {
            let effects = from_terminal(amount, &state, event)?;
            (state, effects)
        }
    };
    let version = if state == before { version } else { version.saturating_add(1) };
    Ok((Attempt { id, intent, amount, state, version }, effects))
}

/// Why an event can't happen now. Money has not moved because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The acquirer speaks of what it was never sent.
    #[error("the acquirer answered a charge that was never sent")]
    NeverSent,
    /// Sent once already: a second first send could charge twice.
    #[error("the charge was already sent; it can only be sent again with the same bytes")]
    AlreadySent,
    /// A re-send with other bytes would be another charge.
    #[error("sending again needs the very same bytes as the first time")]
    OtherBytes,
    /// Too late or too often to send again.
    #[error("the charge may not be sent again: too late or too often")]
    NoMoreSends,
    /// It ended already.
    #[error("the charge has ended already")]
    Ended,
}

struct Sent {
    at: Timestamp,
    key: GatewayKey,
    hash: RequestHash,
    sends: u32,
    last_sent: Timestamp,
    doubt: Option<Doubt>,
}

impl Sent {
    fn into_state(self) -> AttemptState {
        let Self { at, key, hash, sends, last_sent, doubt } = self;
        match doubt {
            None => AttemptState::Dispatched { at, key, hash, sends, last_sent },
            Some(doubt) => AttemptState::NeedsReconciliation { at, key, hash, sends, last_sent, doubt },
        }
    }

    fn may_send_again(&self, policy: &ReconcilePolicy, now: Timestamp) -> bool {
        // After a mismatch the acquirer holds a charge under our key: sending again could only make it worse.
        let mismatch = matches!(self.doubt, Some(Doubt::Mismatch { .. }));
        !mismatch && self.sends < policy.max_sends && now.since(self.at) < policy.resend_window
    }
}

type Stepped = Result<(AttemptState, Vec<Effect>), TransitionError>;

fn from_prepared(now: Timestamp, event: AttemptEvent) -> Stepped {
    match event {
        AttemptEvent::Dispatch { key, hash } => {
            Ok((AttemptState::Dispatched { at: now, key, hash, sends: 1, last_sent: now }, vec![]))
        }
        AttemptEvent::Abandon => Ok(declined(now, DeclineReason::NotSent)),
        AttemptEvent::Resend { .. } | AttemptEvent::Answer(_) | AttemptEvent::Found(_) => Err(TransitionError::NeverSent),
    }
}

fn from_sent(policy: &ReconcilePolicy, now: Timestamp, amount: Money, mut sent: Sent, event: AttemptEvent) -> Stepped {
    let (word, asked) = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Abandon => return Err(TransitionError::AlreadySent),
        AttemptEvent::Resend { hash } => {
            if hash != sent.hash {
                return Err(TransitionError::OtherBytes);
            }
            if !sent.may_send_again(policy, now) {
                return Err(TransitionError::NoMoreSends);
            }
            sent.sends = sent.sends.saturating_add(1);
            sent.last_sent = now;
            return Ok((sent.into_state(), vec![]));
        }
        AttemptEvent::Answer(word) => (word, false),
        AttemptEvent::Found(word) => (word, true),
    };
    let mismatch = matches!(sent.doubt, Some(Doubt::Mismatch { .. }));
    match word {
        BankWord::Approved { charged, gateway_reference } if charged == amount => {
            Ok((AttemptState::Succeeded { at: now, gateway_reference }, vec![Effect::PostPending, Effect::Settle]))
        }
        BankWord::Approved { charged, .. } => {
            sent.doubt = Some(Doubt::Mismatch { charged });
            Ok((sent.into_state(), vec![Effect::Conflict, Effect::AskLater]))
        }
        // A "declined" after a reported mismatch contradicts the acquirer's own earlier word: a person must look.
        BankWord::Declined(_) if mismatch => Ok((sent.into_state(), vec![Effect::Conflict, Effect::AskLater])),
        BankWord::Declined(reason) => Ok(declined(now, reason)),
        BankWord::Reversed => Ok((AttemptState::Reversed { at: now }, vec![Effect::VoidPending, Effect::Release])),
        BankWord::NotFound if asked && !mismatch => Ok(not_found(policy, now, sent)),
        // The question failed, or the answer makes no sense: nothing is known that was not known before.
        BankWord::Silence | BankWord::NotFound if asked => Ok((sent.into_state(), vec![Effect::AskLater])),
        BankWord::Silence | BankWord::NotFound | BankWord::StillWorking => {
            sent.doubt = sent.doubt.or(Some(Doubt::NoAnswer));
            Ok((sent.into_state(), vec![Effect::AskLater]))
        }
    }
}

fn not_found(policy: &ReconcilePolicy, now: Timestamp, sent: Sent) -> (AttemptState, Vec<Effect>) {
    // Too early to mean anything: what was sent may still be on its way.
    if now.since(sent.last_sent) < policy.not_found_grace {
        return (sent.into_state(), vec![Effect::AskLater]);
    }
    if sent.may_send_again(policy, now) {
        return (sent.into_state(), vec![Effect::SendAgain]);
    }
    // Sent as often as allowed; the acquirer may still find it while it keeps the key.
    if now.since(sent.at) < policy.resend_window {
        return (sent.into_state(), vec![Effect::AskLater]);
    }
    declined(now, DeclineReason::NeverReceived)
}

fn declined(now: Timestamp, reason: DeclineReason) -> (AttemptState, Vec<Effect>) {
    (AttemptState::Declined { at: now, reason }, vec![Effect::VoidPending, Effect::Release])
}

fn from_terminal(amount: Money, state: &AttemptState, event: AttemptEvent) -> Result<Vec<Effect>, TransitionError> {
    let word = match event {
        AttemptEvent::Dispatch { .. } | AttemptEvent::Resend { .. } | AttemptEvent::Abandon => {
            return Err(TransitionError::Ended);
        }
        AttemptEvent::Answer(word) | AttemptEvent::Found(word) => word,
    };
    let agrees = match (&word, state) {
        (BankWord::Approved { charged, gateway_reference: heard }, AttemptState::Succeeded { gateway_reference, .. }) => {
            *charged == amount && heard == gateway_reference
        }
        (BankWord::Approved { .. }, _) => false,
        // What was taken back had been charged; what was declined or never made can't be taken back.
        (BankWord::Reversed, AttemptState::Reversed { .. }) => true,
        (BankWord::Reversed, _) => false,
        (BankWord::Declined(_), AttemptState::Declined { .. } | AttemptState::Reversed { .. }) => true,
        (BankWord::Declined(_), _) => false,
        (BankWord::NotFound | BankWord::Silence | BankWord::StillWorking, _) => true,
    };
    Ok(if agrees { vec![] } else { vec![Effect::Conflict] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::money::Currency;
    use proptest::prelude::*;

    const POLICY: ReconcilePolicy =
        ReconcilePolicy { not_found_grace: Duration::from_secs(60), resend_window: Duration::from_secs(24 * 3600), max_sends: 3 };

    fn usd(minor: i64) -> Money {
        Money::new(minor, Currency::Usd).unwrap()
    }

    fn prepared() -> Attempt {
        let e = SeededEntropy::new(4);
        Attempt {
            id: AttemptId::fresh(&e),
            intent: IntentId::fresh(&e),
            amount: usd(1999),
            state: AttemptState::Prepared,
            version: 0,
        }
    }

    fn hash(of: &str) -> RequestHash {
        RequestHash(of.to_owned())
    }

    fn dispatch() -> AttemptEvent {
        AttemptEvent::Dispatch { key: GatewayKey("k".into()), hash: hash("h") }
    }

    fn approved(minor: i64) -> BankWord {
        BankWord::Approved { charged: usd(minor), gateway_reference: "g".into() }
    }

    fn sent_at(at: i64) -> Attempt {
        step(&POLICY, Timestamp(at), prepared(), dispatch()).unwrap().0
    }

    #[test]
    fn the_happy_path_posts_and_settles_once() {
        let (done, effects) = step(&POLICY, Timestamp(2), sent_at(1), AttemptEvent::Answer(approved(1999))).unwrap();
        assert_eq!(effects, [Effect::PostPending, Effect::Settle]);
        let (again, effects) = step(&POLICY, Timestamp(3), done.clone(), AttemptEvent::Found(approved(1999))).unwrap();
        assert_eq!((again, effects), (done.clone(), vec![]));
        let late = step(&POLICY, Timestamp(3), done, AttemptEvent::Answer(BankWord::Declined(DeclineReason::Other))).unwrap();
        assert_eq!(late.1, [Effect::Conflict]);
    }

    #[test]
    fn another_amount_or_currency_is_no_success() {
        for charged in [usd(1998), usd(2000), Money::new(1999, Currency::Eur).unwrap()] {
            let word = BankWord::Approved { charged, gateway_reference: "g".into() };
            let (a, effects) = step(&POLICY, Timestamp(2), sent_at(1), AttemptEvent::Answer(word)).unwrap();
            assert_eq!(effects, [Effect::Conflict, Effect::AskLater]);
            assert!(matches!(a.state, AttemptState::NeedsReconciliation { doubt: Doubt::Mismatch { .. }, .. }));
            assert_eq!(
                step(&POLICY, Timestamp(3), a.clone(), AttemptEvent::Resend { hash: hash("h") }).unwrap_err(),
                TransitionError::NoMoreSends
            );
            let (b, _) = step(&POLICY, Timestamp(3), a, AttemptEvent::Found(BankWord::Reversed)).unwrap();
            assert!(matches!(b.state, AttemptState::Reversed { .. }));
        }
    }

    #[test]
    fn not_found_means_nothing_before_the_grace_time_and_errors_change_nothing() {
        let sent = sent_at(0);
        let ask = |at: i64, a: Attempt, word| step(&POLICY, Timestamp(at), a, AttemptEvent::Found(word)).unwrap();
        assert_eq!(ask(59_999, sent.clone(), BankWord::NotFound), (sent.clone(), vec![Effect::AskLater]));
        assert_eq!(ask(999_999_999, sent.clone(), BankWord::Silence), (sent.clone(), vec![Effect::AskLater]));
        assert_eq!(ask(60_000, sent.clone(), BankWord::NotFound), (sent.clone(), vec![Effect::SendAgain]));
        let resend = |at, a, h| step(&POLICY, Timestamp(at), a, AttemptEvent::Resend { hash: hash(h) });
        assert_eq!(resend(60_000, sent.clone(), "other").unwrap_err(), TransitionError::OtherBytes);
        let (two, _) = resend(60_000, sent, "h").unwrap();
        assert_eq!(ask(60_001, two.clone(), BankWord::NotFound).1, [Effect::AskLater], "the second send may be on its way");
        let (three, _) = resend(120_000, two, "h").unwrap();
        assert_eq!(resend(180_000, three.clone(), "h").unwrap_err(), TransitionError::NoMoreSends);
        assert_eq!(ask(1_000_000, three.clone(), BankWord::NotFound).1, [Effect::AskLater]);
        let (end, effects) = ask(24 * 3_600_000, three, BankWord::NotFound);
        assert!(matches!(end.state, AttemptState::Declined { reason: DeclineReason::NeverReceived, .. }));
        assert_eq!(effects, [Effect::VoidPending, Effect::Release]);
    }

    #[test]
    fn nothing_is_sent_after_the_window() {
        let late = 24 * 3_600_000;
        let again = AttemptEvent::Resend { hash: hash("h") };
        assert_eq!(step(&POLICY, Timestamp(late), sent_at(0), again).unwrap_err(), TransitionError::NoMoreSends);
    }

    fn any_word() -> impl Strategy<Value = BankWord> {
        prop_oneof![
            Just(approved(1999)),
            Just(approved(1998)),
            Just(BankWord::Declined(DeclineReason::InsufficientFunds)),
            Just(BankWord::Reversed),
            Just(BankWord::StillWorking),
            Just(BankWord::NotFound),
            Just(BankWord::Silence),
        ]
    }

    fn any_event() -> impl Strategy<Value = AttemptEvent> {
        prop_oneof![
            Just(dispatch()),
            Just(AttemptEvent::Abandon),
            Just(AttemptEvent::Resend { hash: hash("h") }),
            Just(AttemptEvent::Resend { hash: hash("other") }),
            any_word().prop_map(AttemptEvent::Answer),
            any_word().prop_map(AttemptEvent::Found),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Any events in any order, duplicates among them: at most one end, money posted or voided exactly at that end, terminal
        /// states stay, nothing is sent before its dispatch was written, never more often than allowed.
        #[test]
        fn no_order_of_events_charges_twice(events in proptest::collection::vec((any_event(), 0i64..40_000_000), 1..30)) {
            let mut attempt = prepared();
            let (mut now, mut posts, mut voids, mut settles, mut releases) = (0, 0, 0, 0, 0);
            for (event, wait) in events {
                now += wait;
                let before = attempt.clone();
                let is_dispatch = matches!(event, AttemptEvent::Dispatch { .. });
                let Ok((after, effects)) = step(&POLICY, Timestamp(now), attempt, event) else {
                    attempt = before;
                    continue;
                };
                prop_assert_eq!(after.version - before.version, i64::from(after.state != before.state));
                if before.state.terminal() {
                    prop_assert_eq!(&after, &before);
                }
                if is_dispatch {
                    prop_assert!(before.state == AttemptState::Prepared);
                }
                if let AttemptState::Dispatched { sends, at, last_sent, .. } | AttemptState::NeedsReconciliation { sends, at, last_sent, .. } = &after.state {
                    prop_assert!(*sends <= POLICY.max_sends);
                    prop_assert!(last_sent.since(*at) < POLICY.resend_window);
                }
                for effect in effects {
                    match effect {
                        Effect::PostPending => posts += 1,
                        Effect::VoidPending => voids += 1,
                        Effect::Settle => settles += 1,
                        Effect::Release => releases += 1,
                        Effect::SendAgain | Effect::AskLater => prop_assert!(!after.state.terminal()),
                        Effect::Conflict => {}
                    }
                }
                attempt = after;
            }
            prop_assert!(posts + voids <= 1);
            prop_assert_eq!((posts, voids), (settles, releases));
            prop_assert_eq!(posts + voids == 1, attempt.state.terminal());
            prop_assert_eq!(posts == 1, matches!(attempt.state, AttemptState::Succeeded { .. }));
        }
    }
}
