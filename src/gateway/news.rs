//! What an acquirer tells us without being asked: a webhook, a message of a bank. It never moves money by itself: the processor
//! asks the acquirer about what it names, or holds it against what stands and shows a person what does not agree.

use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot};

use crate::money::Money;
use crate::payment::BankWord;

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something became of one of our operations.
    Operation {
        /// Our reference: the attempt's identifier.
        our_reference: String,
        /// What the message says became of it: only good to see that it contradicts how an operation ended.
        /// [`BankWord::Silence`]: not even that.
        word: BankWord,
    },
    /// A cardholder disputes a charge, or a dispute has moved on.
    Dispute(DisputeNews),
    /// Money was given back that we did not ask to give back: somebody did it at the acquirer's own desk, and our books don't
    /// have it.
    RefundedElsewhere {
        /// What the acquirer calls the charge.
        gateway_reference: String,
        /// What it calls the refund.
        refund: String,
        /// How much.
        amount: Money,
    },
}

/// A dispute, as the acquirer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisputeNews {
    /// What the acquirer calls the dispute.
    pub dispute: String,
    /// What it calls the charge that is disputed.
    pub gateway_reference: String,
    /// How much is disputed; may be less than was charged.
    pub amount: Money,
    /// The acquirer's word for why: ASCII letters, underscores, dots and brackets only.
    pub reason: String,
    /// Where it stands.
    pub stage: DisputeStage,
}

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisputeStage {
    /// Somebody has to answer it, or an answer is being looked at.
    Open,
    /// Decided for the payee: the money stays.
    Won,
    /// Decided for the cardholder: the money is gone.
    Lost,
}

/// News on its way to the processor. Whoever sent it is told that we have it only once [`Delivery::taken`] says so; until then it
/// is sent again.
#[derive(Debug)]
pub struct Delivery {
    /// What is new.
    pub news: News,
    /// `true` once nothing of it can be lost any more. Dropped: it was not taken.
    pub taken: oneshot::Sender<bool>,
}

/// What listens to an acquirer, and what it heard.
#[derive(Debug)]
pub struct Listening {
    /// Where, with its real port.
    pub address: SocketAddr,
    /// What the acquirer tells us.
    pub news: mpsc::Receiver<Delivery>,
}
