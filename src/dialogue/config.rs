//! The dialogue's section of the configuration: limits, waits, thresholds. Units come last in each name.

use serde::{Deserialize, Serialize};

use crate::decision::Policy;

/// Strings drawn for one enrolment, whatever the limits say: each is noted in the store.
const ENROL_LIMIT_STRINGS: u32 = 60;

/// Limits and waits of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DialogueConfig {
    /// Name of the limits and thresholds in force, written into every approval and consent.
    pub policy_version: String,

    /// Re-prompts after silence, for each question.
    pub silence_limit_reprompts: u32,
    /// Rejected voices in a call: the last one refuses.
    pub voice_failure_limit_tries: u32,
    /// Rejected numbers in a call: the last one refuses.
    pub number_failure_limit_tries: u32,
    /// Rejected voices and numbers together in a call. No larger than the two limits above, so that the number of tries
    /// before a refusal tells nothing about which factor failed.
    pub mismatch_limit_tries: u32,
    /// Card numbers in a call that could be neither accepted nor rejected (inconclusive, unusable audio, mistyped).
    pub unclear_limit_tries: u32,
    /// Answers to one yes-or-no question that are neither.
    pub answer_limit_tries: u32,
    /// Customer numbers keyed in a call.
    pub customer_number_limit_tries: u32,
    /// Invitation codes keyed in a call.
    pub invite_code_limit_tries: u32,
    /// Failed factors in 24 h, over all calls, from which on the line is closed.
    pub failures_24h_limit_tries: u32,
    /// Digit strings spoken to enrol; filled from the voice section.
    #[serde(skip, default = "planned_rounds")]
    pub enrol_rounds: u32,
    /// Tries for each string of digits spoken to enrol.
    pub enrol_round_limit_tries: u32,
    /// Net speech that an enrolment needs in all, in milliseconds; further strings are asked for until it is there; filled from the voice
    /// section.
    #[serde(skip, default = "planned_net_speech_ms")]
    pub enrol_net_speech_ms: u32,
    /// One-time codes sent in a call; whoever wants another after that is refused.
    pub code_limit_sends: u32,
    /// Whether a mandate is offered after a first payment: only where one-time codes reach people, since every payment by one needs a code.
    pub offer_mandates: bool,
    /// Most digits of a customer number; the last one ends it.
    pub customer_number_limit_digits: usize,
    /// Most digits of an invitation code; the last one ends it.
    pub invite_code_limit_digits: usize,

    /// The whole call, in milliseconds, after which it is closed unless a payment is on its way.
    pub call_limit_ms: u32,
    /// Wait for the first sound or key after a question, in milliseconds.
    pub silence_ms: u32,
    /// The same after a one-time code was sent, in milliseconds: it has to arrive and be read.
    pub code_wait_ms: u32,
    /// From the first sound to the end of the utterance at most, in milliseconds.
    pub speech_limit_ms: u32,
    /// Between two keys, in milliseconds.
    pub next_key_ms: u32,
    /// Who wants more time (relay services, slow speakers) has so many times as much for each of these waits and for the whole call.
    pub slow_times: u32,
    /// Wait for a look-up, in milliseconds.
    pub lookup_wait_ms: u32,
    /// Wait for the models' answers to one utterance, voice and number together, in milliseconds.
    pub score_wait_ms: u32,
    /// Wait for the payment's outcome, in milliseconds; after it the caller hears that it is not known yet.
    pub payment_wait_ms: u32,
    /// "One moment" is said after so long without an answer, in milliseconds.
    pub patience_ms: u32,
    /// A reply that is no acceptance comes this long after the end of the utterance, or at the next multiple if the answer
    /// took longer, in milliseconds: its time does not tell how far the checks went. Larger than the checks usually take.
    pub refusal_delay_ms: u32,
    /// Where a caller who asks for a person (`0`) is transferred: a SIP URI such as `sip:desk@192.0.2.10`. Empty: nobody; the caller
    /// hears how to reach somebody.
    pub person: String,
    /// How long a person may take to answer, in milliseconds; after it the caller hears that nobody can be reached.
    pub transfer_wait_ms: u32,
    /// The last words of a call at most, in milliseconds.
    pub closing_limit_ms: u32,

    /// How fresh digits are asked for; filled from the challenge section.
    #[serde(skip)]
    pub challenge: ChallengeConfig,
    /// What verdicts depend on; filled from the decision section. Until it is, nobody is accepted.
    #[serde(skip, default = "Policy::nobody")]
    pub policy: Policy,
    /// The yes belongs to the accepted voice at this cosine and above; filled from the voice section.
    #[serde(skip, default = "no_continuity")]
    pub continuity_cosine: f32,
}

/// Fresh digits: how they are asked for. When they are is the policy's (`[decision]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChallengeConfig {
    /// How many digits.
    pub length_digits: usize,
    /// How long they are good for, in seconds, counted from when we begin to say them. An answer after that gets other digits.
    pub valid_s: u32,
    /// Strings of digits in a call. When the last one is answered and still nothing is certain, the call refuses.
    pub limit_strings: u32,
    /// An answer with less speech than this is not judged but asked for again, in milliseconds without pauses.
    pub min_net_speech_ms: u32,
}

impl Default for ChallengeConfig {
    fn default() -> Self {
        Self { length_digits: 8, valid_s: 120, limit_strings: 3, min_net_speech_ms: 1_600 }
    }
}

impl ChallengeConfig {
    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        rule((6..=12).contains(&self.length_digits), "length_digits", "must be 6 to 12")?;
        rule((10..=600).contains(&self.valid_s), "valid_s", "must be 10 to 600")?;
        rule((1..=10).contains(&self.limit_strings), "limit_strings", "must be 1 to 10")
    }
}

fn no_continuity() -> f32 {
    f32::INFINITY
}

fn planned_rounds() -> u32 {
    3
}

fn planned_net_speech_ms() -> u32 {
    8_000
}

impl Default for DialogueConfig {
    fn default() -> Self {
        Self {
            policy_version: "1".to_owned(),
            silence_limit_reprompts: 2,
            voice_failure_limit_tries: 3,
            number_failure_limit_tries: 3,
            mismatch_limit_tries: 3,
            unclear_limit_tries: 3,
            answer_limit_tries: 3,
            customer_number_limit_tries: 3,
            invite_code_limit_tries: 3,
            failures_24h_limit_tries: 5,
            enrol_rounds: planned_rounds(),
            enrol_round_limit_tries: 3,
            enrol_net_speech_ms: planned_net_speech_ms(),
            code_limit_sends: 3,
            offer_mandates: false,
            customer_number_limit_digits: 12,
            invite_code_limit_digits: 12,
            call_limit_ms: 300_000,
            silence_ms: 6_000,
            code_wait_ms: 30_000,
            speech_limit_ms: 45_000,
            slow_times: 3,
            next_key_ms: 5_000,
            lookup_wait_ms: 5_000,
            score_wait_ms: 20_000,
            payment_wait_ms: 20_000,
            patience_ms: 1_200,
            refusal_delay_ms: 3_000,
            person: String::new(),
            transfer_wait_ms: 40_000,
            closing_limit_ms: 30_000,
            challenge: ChallengeConfig::default(),
            policy: Policy::nobody(),
            continuity_cosine: no_continuity(),
        }
    }
}

impl DialogueConfig {
    /// Rounds of an enrolment: as many as planned may follow when those held too little speech.
    pub fn enrol_rounds_at_most(&self) -> u32 {
        self.enrol_rounds.max(1).saturating_mul(2)
    }

    /// Strings of digits that an enrolment can use: each is asked for once.
    pub fn enrol_strings(&self) -> u32 {
        self.enrol_rounds_at_most().saturating_mul(self.enrol_round_limit_tries).min(ENROL_LIMIT_STRINGS)
    }

    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        let at_least_once = [
            ("voice_failure_limit_tries", self.voice_failure_limit_tries),
            ("number_failure_limit_tries", self.number_failure_limit_tries),
            ("mismatch_limit_tries", self.mismatch_limit_tries),
            ("unclear_limit_tries", self.unclear_limit_tries),
            ("answer_limit_tries", self.answer_limit_tries),
            ("customer_number_limit_tries", self.customer_number_limit_tries),
            ("invite_code_limit_tries", self.invite_code_limit_tries),
            ("code_limit_sends", self.code_limit_sends),
            ("failures_24h_limit_tries", self.failures_24h_limit_tries),
            ("enrol_rounds", self.enrol_rounds),
            ("enrol_round_limit_tries", self.enrol_round_limit_tries),
        ];
        for (key, limit) in at_least_once {
            rule(limit >= 1, key, "must be at least 1")?;
        }
        rule(
            self.mismatch_limit_tries <= self.voice_failure_limit_tries.min(self.number_failure_limit_tries),
            "mismatch_limit_tries",
            "must not exceed voice_failure_limit_tries and number_failure_limit_tries, else the number of tries tells which factor failed",
        )?;
        for (key, digits) in [
            ("customer_number_limit_digits", self.customer_number_limit_digits),
            ("invite_code_limit_digits", self.invite_code_limit_digits),
        ] {
            rule((4..=32).contains(&digits), key, "must be 4 to 32")?;
        }
        for (key, ms) in [
            ("silence_ms", self.silence_ms),
            ("code_wait_ms", self.code_wait_ms),
            ("speech_limit_ms", self.speech_limit_ms),
            ("next_key_ms", self.next_key_ms),
            ("lookup_wait_ms", self.lookup_wait_ms),
            ("payment_wait_ms", self.payment_wait_ms),
            ("transfer_wait_ms", self.transfer_wait_ms),
            ("closing_limit_ms", self.closing_limit_ms),
        ] {
            rule(ms >= 1_000, key, "must be at least 1000")?;
        }
        rule((1..=10).contains(&self.slow_times), "slow_times", "must be 1 to 10")?;
        rule(self.patience_ms >= 100, "patience_ms", "must be at least 100")?;
        rule(self.score_wait_ms >= self.refusal_delay_ms, "score_wait_ms", "must be at least refusal_delay_ms")?;
        rule(self.refusal_delay_ms >= 100, "refusal_delay_ms", "must be at least 100")?;
        rule(self.call_limit_ms >= 10_000, "call_limit_ms", "must be at least 10000")?;
        rule(
            self.person.is_empty() || self.person.starts_with("sip:") || self.person.starts_with("sips:"),
            "person",
            "must be a SIP URI such as sip:desk@192.0.2.10, or empty",
        )?;
        rule(!self.policy_version.is_empty(), "policy_version", "must not be empty")
    }
}
