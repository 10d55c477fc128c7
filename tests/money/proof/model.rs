//! A model of the pure core: one payment with all that may follow it, a bank that acts when it likes, people, and a clock that goes both ways.
//! The reference knows what the bank did; the core only hears of it. Whatever the order, the core must never say more than is true.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use voicepay::clock::{SeededEntropy, Timestamp};
use voicepay::ids::{AttemptId, CallId, CardId, CustomerId, DisputeId, IntentId, PayeeId, RequestId, TransferId};
use voicepay::ledger::{AccountName, Books, Cause, Transfer, TransferKind};
use voicepay::money::{Currency, Money};
use voicepay::payment::{
    Attempt, AttemptEvent, AttemptState, Balance, BankWord, Capture, DeclineReason, Dispute, DisputeState, Effect, GatewayKey,
    Intent, IntentStatus, Operation, ReconcilePolicy, RequestHash, balance, step,
};

const WHOLE: i64 = 900;
const GATEWAY: &str = "bank";
const GRACE_MS: i64 = 60_000;
const WINDOW_MS: i64 = 24 * 3_600_000;
const MAX_SENDS: u32 = 3;
const START_MS: i64 = 1_800_000_000_000;

fn policy() -> ReconcilePolicy {
    let ms = |n: i64| std::time::Duration::from_millis(u64::try_from(n).unwrap());
    ReconcilePolicy { not_found_grace: ms(GRACE_MS), resend_window: ms(WINDOW_MS), max_sends: MAX_SENDS }
}

/// What the bank did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Nothing,
    Did(i64),
    TakenBack,
    Declined,
}

/// What we may say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Prepared,
    InDoubt,
    Conflict(i64),
    Done,
    Undone,
}

#[derive(Clone, Debug)]
struct Op {
    operation: Operation,
    amount: i64,
    truth: Truth,
    known: Known,
    at: i64,
    last_sent: i64,
    sends: u32,
}

impl Op {
    fn taken(&self) -> i64 {
        match self.known {
            Known::Undone => 0,
            Known::Conflict(did) => self.amount.max(did),
            Known::Prepared | Known::InDoubt | Known::Done => self.amount,
        }
    }

    fn live(&self) -> bool {
        matches!(self.known, Known::Prepared | Known::InDoubt | Known::Conflict(_))
    }
}

/// The reference.
#[derive(Clone, Debug)]
struct Reality {
    now: i64,
    ops: Vec<Op>,
    /// Amount, and how it was decided.
    disputes: Vec<(i64, Option<bool>)>,
}

impl Reality {
    fn sum(&self, operation: Operation, of: impl Fn(&Op) -> i64) -> i64 {
        self.ops.iter().filter(|o| o.operation == operation).map(of).sum()
    }

    fn done(&self, operation: Operation) -> i64 {
        self.sum(operation, |o| if o.known == Known::Done { o.amount } else { 0 })
    }

    fn captured(&self) -> i64 {
        self.done(Operation::Charge) + self.done(Operation::Capture)
    }

    fn contested(&self, of: Option<bool>) -> i64 {
        self.disputes.iter().filter(|(_, end)| *end == of).map(|(amount, _)| amount).sum()
    }

    /// How much a capture, void or refund may be of.
    fn left(&self, operation: Operation) -> i64 {
        match operation {
            Operation::Charge | Operation::Authorise => 0,
            Operation::Capture | Operation::Void => {
                let ended = self.sum(Operation::Capture, Op::taken) + self.sum(Operation::Void, Op::taken) > 0;
                if ended { 0 } else { self.done(Operation::Authorise) }
            }
            Operation::Refund => {
                let gone = self.sum(Operation::Refund, Op::taken) + self.contested(None) + self.contested(Some(false));
                (self.captured() - gone).max(0)
            }
        }
    }

    fn accepted(&self, operation: Operation, amount: Option<i64>) -> Option<i64> {
        let left = self.left(operation);
        let asked = amount.unwrap_or(left);
        let whole = operation != Operation::Void || asked == left;
        (left > 0 && asked > 0 && asked <= left && whole).then_some(asked)
    }

    fn may_send_again(&self, op: &Op) -> bool {
        self.now >= op.last_sent && op.sends < MAX_SENDS && self.now - op.at < WINDOW_MS
    }
}

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A capture, void or refund is asked for.
    Ask(Operation, Option<i64>),
    Dispatch(usize),
    Resend(usize, bool),
    Abandon(usize),
    /// The bank acts on what it got; the second: how.
    Act(usize, Truth),
    /// The bank's true word comes: as an answer or as a reply to a question.
    Hear(usize, bool),
    /// Nothing that says anything comes.
    Nothing(usize, bool, bool),
    /// A person puts it right at the bank, one way or the other.
    Resolve(usize, bool),
    Contest(i64),
    Decide(usize, bool),
    Time(i64),
}

struct Machine;

impl ReferenceStateMachine for Machine {
    type State = Reality;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Reality> {
        let begin = |operation| {
            let first = Op {
                operation,
                amount: WHOLE,
                truth: Truth::Nothing,
                known: Known::Prepared,
                at: START_MS,
                last_sent: START_MS,
                sends: 0,
            };
            Reality { now: START_MS, ops: vec![first], disputes: vec![] }
        };
        prop_oneof![Just(begin(Operation::Charge)), Just(begin(Operation::Authorise))].boxed()
    }

    fn transitions(reality: &Reality) -> BoxedStrategy<Event> {
        let (ops, disputes) = (0..reality.ops.len(), 0..reality.disputes.len().max(1));
        let operation = prop_oneof![
            1 => Just(Operation::Charge),
            1 => Just(Operation::Authorise),
            2 => Just(Operation::Capture),
            1 => Just(Operation::Void),
            4 => Just(Operation::Refund)
        ];
        let amount = prop_oneof![2 => Just(None), 3 => (1..=WHOLE / 2).prop_map(Some), 1 => Just(Some(WHOLE + 1))];
        let truth = prop_oneof![
            5 => Just(Truth::Did(0)),
            1 => Just(Truth::Did(1)),
            1 => Just(Truth::Did(-1)),
            1 => Just(Truth::TakenBack),
            1 => Just(Truth::Declined)
        ];
        let by = prop_oneof![4 => 0..GRACE_MS, 3 => GRACE_MS..3_600_000, 1 => Just(WINDOW_MS), 2 => -3_600_000..0i64];
        prop_oneof![
            4 => (operation, amount).prop_map(|(o, a)| Event::Ask(o, a)),
            4 => ops.clone().prop_map(Event::Dispatch),
            2 => (ops.clone(), any::<bool>()).prop_map(|(i, same)| Event::Resend(i, same)),
            1 => ops.clone().prop_map(Event::Abandon),
            5 => (ops.clone(), truth).prop_map(|(i, t)| Event::Act(i, t)),
            6 => (ops.clone(), any::<bool>()).prop_map(|(i, q)| Event::Hear(i, q)),
            2 => (ops.clone(), any::<bool>(), any::<bool>()).prop_map(|(i, q, w)| Event::Nothing(i, q, w)),
            2 => (ops, any::<bool>()).prop_map(|(i, done)| Event::Resolve(i, done)),
            1 => (1..=WHOLE).prop_map(Event::Contest),
            1 => (disputes, any::<bool>()).prop_map(|(i, won)| Event::Decide(i, won)),
            3 => by.prop_map(Event::Time),
        ]
        .boxed()
    }

    fn preconditions(reality: &Reality, event: &Event) -> bool {
        match event {
            Event::Dispatch(i) | Event::Resend(i, _) | Event::Abandon(i) | Event::Hear(i, _) | Event::Nothing(i, _, _) => {
                *i < reality.ops.len()
            }
            // What is still on its way when the acquirer no longer keeps keys is lost for good: see the acquirer's contract in `gateway`.
            Event::Act(i, _) => {
                reality.ops.get(*i).is_some_and(|o| o.sends > 0 && o.truth == Truth::Nothing && o.known != Known::Undone)
            }
            Event::Resolve(i, _) => *i < reality.ops.len(),
            Event::Decide(i, _) => *i < reality.disputes.len(),
            Event::Ask(..) | Event::Contest(_) | Event::Time(_) => true,
        }
    }

    fn apply(mut r: Reality, event: &Event) -> Reality {
        let (now, again) = (
            r.now,
            match event {
                Event::Resend(i, _) | Event::Nothing(i, _, _) => r.may_send_again(&r.ops[*i]),
                _ => false,
            },
        );
        match *event {
            Event::Ask(operation, amount) => {
                if let Some(amount) = r.accepted(operation, amount) {
                    let (truth, known) = (Truth::Nothing, Known::Prepared);
                    r.ops.push(Op { operation, amount, truth, known, at: now, last_sent: now, sends: 0 });
                }
            }
            Event::Dispatch(i) => {
                let op = &mut r.ops[i];
                if op.known == Known::Prepared {
                    (op.known, op.at, op.last_sent, op.sends) = (Known::InDoubt, now, now, 1);
                }
            }
            Event::Resend(i, same) => {
                let op = &mut r.ops[i];
                if op.known == Known::InDoubt && same && again {
                    (op.last_sent, op.sends) = (now, op.sends + 1);
                }
            }
            Event::Abandon(i) => {
                if r.ops[i].known == Known::Prepared {
                    r.ops[i].known = Known::Undone;
                }
            }
            Event::Act(i, truth) => {
                let op = &mut r.ops[i];
                op.truth = match truth {
                    // Nothing but what begins a payment is done at another amount here.
                    Truth::Did(more) if op.operation.opens() => Truth::Did(op.amount + more),
                    Truth::Did(_) => Truth::Did(op.amount),
                    other => other,
                };
            }
            Event::Hear(i, _) => {
                let op = &mut r.ops[i];
                if matches!(op.known, Known::InDoubt | Known::Conflict(_)) {
                    op.known = match op.truth {
                        Truth::Nothing => op.known,
                        Truth::Did(amount) if amount == op.amount => Known::Done,
                        Truth::Did(amount) => Known::Conflict(amount),
                        Truth::TakenBack | Truth::Declined => Known::Undone,
                    };
                }
            }
            Event::Nothing(i, question, not_found) => {
                let op = &mut r.ops[i];
                let believed = question && not_found && op.truth == Truth::Nothing && op.known == Known::InDoubt;
                if believed && now - op.last_sent >= GRACE_MS && !again && now - op.at >= WINDOW_MS {
                    op.known = Known::Undone;
                }
            }
            Event::Resolve(i, done) => {
                let op = &mut r.ops[i];
                if let Known::Conflict(_) = op.known {
                    (op.known, op.truth) =
                        if done { (Known::Done, Truth::Did(op.amount)) } else { (Known::Undone, Truth::TakenBack) };
                }
            }
            Event::Contest(amount) => {
                if amount <= r.captured() - r.contested(None) - r.contested(Some(false)) {
                    r.disputes.push((amount, None));
                }
            }
            Event::Decide(i, won) => {
                r.disputes[i].1 = r.disputes[i].1.or(Some(won));
            }
            Event::Time(by) => r.now += by,
        }
        r
    }
}

/// The core, with the rows that a store would keep.
struct Core {
    intent: Intent,
    attempts: Vec<Attempt>,
    disputes: Vec<Dispute>,
    transfers: Vec<Transfer>,
    books: Books,
    entropy: SeededEntropy,
    now: i64,
}

fn usd(minor: i64) -> Option<Money> {
    Money::new(minor, Currency::Usd).ok()
}

fn hash(i: usize) -> RequestHash {
    RequestHash(format!("hash-{i}"))
}

impl Core {
    fn write(&mut self, transfer: Transfer) {
        self.books.apply(&transfer).unwrap();
        self.transfers.push(transfer);
    }

    fn begin(&mut self, operation: Operation, amount: Money, of: Option<AttemptId>) {
        let at = Timestamp(self.now);
        let attempt = Attempt {
            id: AttemptId::fresh(&self.entropy),
            number: 0,
            intent: self.intent.id.clone(),
            operation,
            of_attempt: of,
            gateway: GATEWAY.into(),
            amount,
            prepared_at: at,
            state: AttemptState::Prepared,
            version: 0,
        };
        let (acquirer, payee) =
            (AccountName::acquirer(GATEWAY, Currency::Usd), AccountName::payee(&self.intent.payee, Currency::Usd));
        let sides = match operation {
            Operation::Charge | Operation::Authorise => Some((acquirer, payee)),
            Operation::Refund => Some((payee, acquirer)),
            Operation::Capture | Operation::Void => None,
        };
        if let Some((debit, credit)) = sides {
            self.write(Transfer {
                id: TransferId::fresh(&self.entropy),
                kind: TransferKind::Pending,
                debit,
                credit,
                amount,
                intent: self.intent.id.clone(),
                cause: Cause::Attempt(attempt.id.clone()),
                at,
            });
        }
        self.attempts.push(attempt);
    }

    fn event(&mut self, i: usize, event: AttemptEvent) {
        let at = Timestamp(self.now);
        let Ok((after, effects)) = step(&policy(), at, self.attempts[i].clone(), event) else { return };
        let reserved_by = match after.operation {
            Operation::Capture | Operation::Void => after.of_attempt.clone().unwrap(),
            Operation::Charge | Operation::Authorise | Operation::Refund => after.id.clone(),
        };
        let pending = self.transfers.iter().find(|t| t.kind == TransferKind::Pending && t.cause.as_str() == reserved_by.as_str());
        let pending = pending.unwrap().clone();
        for effect in effects {
            let (id, cause) = (TransferId::fresh(&self.entropy), Cause::Attempt(after.id.clone()));
            match effect {
                Effect::PostPending => self.write(pending.posted_in_part(id, at, after.amount, cause)),
                Effect::VoidPending => self.write(pending.voided(id, at).because(cause)),
                Effect::SendAgain => assert!(after.state.takes() && !after.state.terminal(), "sends again what has ended"),
                Effect::Hold | Effect::Settle | Effect::Release | Effect::AskLater | Effect::Conflict => {}
            }
        }
        self.attempts[i] = after;
    }

    fn contest(&mut self, amount: i64) {
        let b = Balance::of(&self.intent, &self.attempts, &self.disputes);
        let Some(money) = usd(amount).filter(|m| m.minor.get() <= b.disputable()) else { return };
        let id = DisputeId::fresh(&self.entropy);
        let charge = self.transfers[0].clone();
        let (at, intent) = (Timestamp(self.now), self.intent.id.clone());
        self.write(Transfer {
            id: TransferId::fresh(&self.entropy),
            kind: TransferKind::Pending,
            debit: charge.credit,
            credit: charge.debit,
            amount: money,
            intent: intent.clone(),
            cause: Cause::Dispute(id.clone()),
            at,
        });
        let (reference, reason) = (id.to_string(), "none".into());
        self.disputes.push(Dispute { id, intent, reference, amount: money, reason, opened_at: at, state: DisputeState::Opened });
    }

    fn decide(&mut self, i: usize, won: bool) {
        let at = Timestamp(self.now);
        let Ok(Some(after)) = self.disputes[i].clone().close(won, at) else { return };
        let reserved = self.transfers.iter().find(|t| t.cause.as_str() == after.id.as_str()).unwrap().clone();
        let id = TransferId::fresh(&self.entropy);
        self.write(if won { reserved.voided(id, at) } else { reserved.posted(id, at) });
        self.disputes[i] = after;
    }
}

struct Proof;

impl StateMachineTest for Proof {
    type SystemUnderTest = Core;
    type Reference = Machine;

    fn init_test(reality: &Reality) -> Core {
        let entropy = SeededEntropy::new(5);
        let opening = reality.ops[0].operation;
        let intent = Intent {
            id: IntentId::fresh(&entropy),
            customer: CustomerId::fresh(&entropy),
            request: RequestId::fresh(&entropy),
            payee: PayeeId::fresh(&entropy),
            card: CardId::fresh(&entropy),
            last4: "1111".into(),
            occasion: CallId::fresh(&entropy).into(),
            amount: usd(WHOLE).unwrap(),
            capture: if opening == Operation::Charge { Capture::Automatic } else { Capture::Manual },
            authorisation_expires_at: None,
            status: IntentStatus::Pending,
            created_at: Timestamp(START_MS),
        };
        let (attempts, disputes, transfers) = (vec![], vec![], vec![]);
        let mut core = Core { intent, attempts, disputes, transfers, books: Books::default(), entropy, now: START_MS };
        core.begin(opening, usd(WHOLE).unwrap(), None);
        core
    }

    fn apply(mut core: Core, reality: &Reality, event: Event) -> Core {
        match event {
            Event::Ask(operation, amount) => {
                let parts = (&core.intent, &core.attempts[..], &core.disputes[..]);
                let judged = match amount {
                    None => balance::judge(Timestamp(core.now), parts, operation, None, GATEWAY).ok(),
                    Some(a) => balance::judge(Timestamp(core.now), parts, operation, usd(a), GATEWAY).ok(),
                };
                if let Some((amount, of)) = judged {
                    let of = of.id.clone();
                    core.begin(operation, amount, Some(of));
                }
            }
            Event::Dispatch(i) => core.event(i, AttemptEvent::Dispatch { key: GatewayKey(format!("key-{i}")), hash: hash(i) }),
            Event::Resend(i, same) => core.event(i, AttemptEvent::Resend { hash: if same { hash(i) } else { hash(i + 1000) } }),
            Event::Abandon(i) => core.event(i, AttemptEvent::Abandon),
            Event::Act(..) => {}
            Event::Hear(i, question) => {
                let op = &reality.ops[i];
                let word = match op.truth {
                    Truth::Nothing => BankWord::StillWorking,
                    Truth::Did(a) => BankWord::Approved { charged: usd(a).unwrap(), gateway_reference: format!("b-{i}") },
                    Truth::TakenBack => BankWord::Reversed,
                    Truth::Declined => BankWord::Declined(DeclineReason::DoNotHonour),
                };
                core.event(i, if question { AttemptEvent::Found(word) } else { AttemptEvent::Answer(word) });
            }
            Event::Nothing(i, question, not_found) => {
                let ignorant = question && not_found && reality.ops[i].truth == Truth::Nothing;
                let word = if ignorant { BankWord::NotFound } else { BankWord::Silence };
                core.event(i, if question { AttemptEvent::Found(word) } else { AttemptEvent::Answer(word) });
            }
            Event::Resolve(i, done) => core.event(i, AttemptEvent::Resolve { done }),
            Event::Contest(amount) => core.contest(amount),
            Event::Decide(i, won) => core.decide(i, won),
            Event::Time(by) => core.now += by,
        }
        core
    }

    fn check_invariants(core: &Core, reality: &Reality) {
        assert_eq!(core.attempts.len(), reality.ops.len(), "the core and the model accept the same operations");
        for (attempt, op) in core.attempts.iter().zip(&reality.ops) {
            let says = match &attempt.state {
                AttemptState::Prepared => Known::Prepared,
                AttemptState::Dispatched { sends, .. } | AttemptState::NeedsReconciliation { sends, .. } => {
                    assert!(*sends <= MAX_SENDS && *sends == op.sends, "sent {sends} times");
                    Known::InDoubt
                }
                AttemptState::Conflicted { charged, .. } => Known::Conflict(charged.minor.get()),
                AttemptState::Succeeded { .. } => Known::Done,
                AttemptState::Declined { .. } | AttemptState::Reversed { .. } => Known::Undone,
            };
            assert_eq!(says, op.known, "{:?}", attempt.state);
            match says {
                Known::Done => assert_eq!(op.truth, Truth::Did(op.amount), "a success that the bank does not have"),
                Known::Undone => assert!(!matches!(op.truth, Truth::Did(_)), "money moved, and we deny it"),
                Known::Prepared => assert_eq!(op.truth, Truth::Nothing),
                Known::InDoubt | Known::Conflict(_) => {}
            }
        }
        let b = Balance::of(&core.intent, &core.attempts, &core.disputes);
        let refunded = reality.done(Operation::Refund);
        let (contested, lost) = (reality.contested(None), reality.contested(Some(false)));
        assert_eq!((b.captured, b.refunded, b.disputed, b.charged_back), (reality.captured(), refunded, contested, lost));
        assert!(b.refunded <= b.refund_taken && b.refund_taken <= b.captured && b.captured <= WHOLE, "{b:?}");
        let moved: i64 = reality.sum(Operation::Refund, |o| if let Truth::Did(a) = o.truth { a } else { 0 });
        assert!(moved <= reality.captured(), "the bank gave back more than was captured");
        core.books.balanced().unwrap();
        let acquirer = AccountName::acquirer(GATEWAY, Currency::Usd);
        let books = core.books.balances().get(&acquirer).copied().unwrap_or_default();
        assert_eq!((books.debits_posted, books.credits_posted), (reality.captured(), refunded + lost));
        let held = reality.ops.iter().any(|o| o.operation == Operation::Authorise && o.known == Known::Done)
            && reality.done(Operation::Capture) + reality.done(Operation::Void) == 0;
        let opening = &reality.ops[0];
        assert_eq!(books.debits_pending, if opening.live() || held { WHOLE } else { 0 }, "what is reserved on the card");
        let refunds = reality.sum(Operation::Refund, |o| if o.live() { o.amount } else { 0 });
        assert_eq!(books.credits_pending, refunds + contested, "what is reserved to be given back");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_core_never_says_more_than_is_true(sequential 1..60 => Proof);
}
