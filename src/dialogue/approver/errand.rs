//! What a call that we place is about, what it asks of the edge, and what it is told.

use crate::decision::{PhraseEvidence, VoiceAccepted, VoiceScore};
use crate::dialogue::prompt::SpokenPayee;
use crate::e164::E164;
use crate::ids::{ApprovalId, CustomerId};
use crate::language::Language;
use crate::money::Money;

/// Whom we call, and why. Neither an amount nor a payee: those come once the voice is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// Whom: the voice has to be this customer's.
    pub customer: CustomerId,
    /// The number that was called.
    pub number: E164,
    /// In which language we speak with them.
    pub language: Language,
    /// Failed factors of the last 24 h that count against this customer.
    pub failures_24h: u32,
    /// They want more time: relay services, slow speakers. Waits for them are longer, as in a call of theirs; nothing is judged by it.
    pub slow: bool,
    /// Why.
    pub purpose: Purpose,
}

/// Why we call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To ask whether a payment may be made: a supervisor or guardian.
    Decide(ApprovalId),
    /// To tell what became of a payment that others had to agree to: its payer.
    Tell(ApprovalId),
}

impl Purpose {
    /// What it is about.
    pub fn approval(&self) -> &ApprovalId {
        match self {
            Self::Decide(approval) | Self::Tell(approval) => approval,
        }
    }
}

/// What a call that we placed asks of the edge.
#[derive(Debug)]
pub enum ErrandEffect {
    /// Read what this is about. The proof that the voice was accepted goes along and comes back: nothing of the payment is known to the
    /// call before. Answered by [`ErrandNews::Found`].
    LookUp {
        /// That the voice was accepted.
        accepted: VoiceAccepted,
        /// Whose voice.
        customer: CustomerId,
        /// What to read.
        purpose: Purpose,
    },
    /// Note this answer, durably. Answered by [`ErrandNews::Decided`].
    Decide(Box<Decision>),
}

/// An answer, and what speaks for its being this person's. What was read out goes along: it binds nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What was decided on.
    pub approval: ApprovalId,
    /// By whom.
    pub customer: CustomerId,
    /// Yes or no.
    pub yes: bool,
    /// How much was read out.
    pub amount: Money,
    /// And for whom.
    pub payee: SpokenPayee,
    /// The voice that said fresh digits.
    pub voice: VoiceScore,
    /// The digits.
    pub digits: PhraseEvidence,
    /// Cosine of the answer with that voice; a no may lack it.
    pub continuity_cosine: Option<f32>,
    /// Thresholds and limits in force.
    pub policy_version: String,
}

/// What a call that we placed is told.
#[derive(Debug)]
pub enum ErrandNews {
    /// Answer to [`ErrandEffect::LookUp`].
    Found {
        /// What there is to say.
        matter: Matter,
        /// The proof that went out.
        accepted: VoiceAccepted,
    },
    /// Answer to [`ErrandEffect::Decide`].
    Decided(DecisionOutcome),
    /// A machine's beep: nobody is there after all, and whatever is said is recorded.
    Machine,
}

/// What there is to say to a person whose voice was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matter {
    /// May this be paid?
    Question {
        /// How much.
        amount: Money,
        /// For whom.
        payee: SpokenPayee,
    },
    /// This became of it.
    Result {
        /// How much.
        amount: Money,
        /// For whom.
        payee: SpokenPayee,
        /// What.
        result: Told,
    },
    /// It was settled meanwhile, or is no longer this person's to settle.
    Settled,
    /// It could not be read.
    Trouble,
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Charged. `reference`: digit values to be spoken.
    Paid {
        /// The receipt's.
        reference: Vec<u8>,
    },
    /// The acquirer said no.
    Declined,
    /// Not everybody agreed in time.
    NotAgreed,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// It is noted.
    Noted,
    /// Too late, or no longer theirs to give: nothing was changed.
    Settled,
    /// It could not be noted.
    Trouble,
}
