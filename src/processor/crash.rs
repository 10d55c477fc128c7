//! The points of the payment core at which a test may kill the process (`crate::crash`), and what their names are made of.

use crate::crash::is_armed;
pub use crate::crash::point;
use crate::payment::Operation;

/// What every operation goes through, in this order. A point's name is `{operation}_{step}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before it is written down.
    BeforeBegin,
    /// It is written down; the acquirer has heard nothing.
    AfterBegin,
    /// Before the commit that says that it is about to be sent.
    BeforeDispatch,
    /// After that commit, before a byte leaves.
    AfterDispatch,
    /// The acquirer has answered, and nothing of it is written down.
    AfterAnswer,
    /// Before the commit of what it said.
    BeforeResult,
    /// After that commit.
    AfterResult,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 7] = [
        Self::BeforeBegin,
        Self::AfterBegin,
        Self::BeforeDispatch,
        Self::AfterDispatch,
        Self::AfterAnswer,
        Self::BeforeResult,
        Self::AfterResult,
    ];

    /// As a point's name has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeBegin => "before_begin",
            Self::AfterBegin => "after_begin",
            Self::BeforeDispatch => "before_dispatch",
            Self::AfterDispatch => "after_dispatch",
            Self::AfterAnswer => "after_answer",
            Self::BeforeResult => "before_result",
            Self::AfterResult => "after_result",
        }
    }
}

/// The points that an undisturbed operation meets, in order.
pub fn points_of(operation: Operation) -> Vec<String> {
    Step::ALL.into_iter().map(|step| name(operation, step)).collect()
}

/// The points that claiming, reconciliation, expiry, disputes, people's decisions and the audit's sealer meet.
pub const OTHER_POINTS: [&str; 20] = [
    "before_claim",
    "after_claim",
    "before_question",
    "after_question",
    "before_resend",
    "after_resend",
    "before_put_off",
    "after_put_off",
    "before_expiry",
    "after_expiry",
    "before_resolution",
    "after_resolution",
    "before_dispute",
    "after_dispute",
    "before_dispute_closed",
    "after_dispute_closed",
    "before_seal",
    "after_seal",
    "before_checkpoint",
    "after_checkpoint",
];

/// Every point.
pub fn all_points() -> Vec<String> {
    let operations = Operation::ALL.into_iter().flat_map(points_of);
    operations.chain(OTHER_POINTS.into_iter().map(str::to_owned)).collect()
}

fn name(operation: Operation, step: Step) -> String {
    format!("{}_{}", operation.as_str(), step.as_str())
}

/// Dies here if told to.
pub fn at(operation: Operation, step: Step) {
    if is_armed() {
        point(&name(operation, step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_name_the_points_that_stand_in_the_source_and_no_others() {
        let sources = [
            include_str!("submit.rs"),
            include_str!("operate.rs"),
            include_str!("send.rs"),
            include_str!("worker.rs"),
            include_str!("dispute.rs"),
            include_str!("sealer.rs"),
        ]
        .concat();
        let mut steps = Step::ALL.to_vec();
        steps.retain(|s| !sources.contains(&format!("Step::{s:?})")));
        assert!(steps.is_empty(), "steps that nobody meets: {steps:?}");
        let literal = "crash::point(\"";
        let mut named: Vec<_> =
            sources.match_indices(literal).map(|(i, _)| sources[i + literal.len()..].split('"').next().unwrap()).collect();
        named.sort_unstable();
        named.dedup();
        let mut listed = OTHER_POINTS.to_vec();
        listed.sort_unstable();
        assert_eq!(named, listed);
        let all = all_points();
        assert_eq!(all.len(), 55);
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }
}
