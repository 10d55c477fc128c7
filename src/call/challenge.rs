//! Fresh digits at the edge, of payments and enrolments: drawn so that they are never asked for twice and easy to say; the answer to a challenge
//! is scored for voice and words side by side. The digits themselves are in no timeline, log or row.

use std::sync::Arc;

use super::ahead::Findings;
use super::desk::{Desk, DeskError};
use super::driver::Call;
use super::figures;
use super::services::Services;
use super::work::{Done, Kept, speech_trouble};
use crate::clock::{Entropy, Timestamp};
use crate::decision::PhraseEvidence;
use crate::dialogue::{ChallengeHeard, ChallengeOutcome, Input, ScoreTrouble};
use crate::ids::CustomerId;

/// Draws for one challenge, those that were used before or are hard to say among them. Of eight digits some 30 million strings will do: that
/// so many draws all fail tells of a broken generator.
const DRAW_LIMIT: u32 = 64;

impl Call {
    pub(super) fn draw_challenge(&mut self, customer: CustomerId, length: usize) {
        let (services, now) = (Arc::clone(&self.services), self.now());
        self.jobs.spawn(async move {
            let outcome = match services.off_clock(services.desk.draw_challenge(&customer, length, now)).await {
                Ok(Some(digits)) => ChallengeOutcome::Drawn { digits },
                Ok(None) => {
                    tracing::error!("no fresh digits could be drawn");
                    ChallengeOutcome::Trouble
                }
                Err(error) => {
                    tracing::error!(%error, "fresh digits could not be noted as used");
                    ChallengeOutcome::Trouble
                }
            };
            let drawn = matches!(outcome, ChallengeOutcome::Drawn { .. });
            let done = Done::tell(Input::ChallengeDrawn(outcome));
            if drawn { done.line("fresh digits are drawn", figures([])) } else { done }
        });
    }

    pub(super) fn score_challenge(&mut self, customer: CustomerId, digits: Vec<u8>) {
        let (services, findings, claim) = (Arc::clone(&self.services), self.findings.clone(), self.claim(customer));
        self.jobs.spawn(async move {
            let trouble = |t| Done::tell(Input::ChallengeScored(Err(t)));
            let Some(findings) = findings else { return trouble(ScoreTrouble::Failed) };
            let (voice, content) = tokio::join!(services.compare_voice(&claim, &findings), services.phrase_in(&findings, digits));
            let (compared, content) = match (voice, content) {
                (Ok(compared), Ok(content)) => (compared, content),
                (Err(t), _) | (_, Err(t)) => return trouble(t),
            };
            let t = services.policy.phrase;
            let what = format!(
                "fresh digits: {:.1} nats (accepted from {:.1}, rejected below {:.1})",
                content.llr, t.accept_llr, t.reject_llr
            );
            let numbers = figures([("phrase_llr", content.llr.into())]);
            let done = Done::tell(Input::ChallengeScored(Ok(ChallengeHeard { voice: compared.heard, content })))
                .line(compared.what, compared.figures)
                .line(what, numbers);
            match compared.embedding {
                Some(embedding) => {
                    let net_speech_ms = findings.utterance.net_speech_ms;
                    done.keep(Kept::Fresh { embedding: Box::new(embedding), net_speech_ms })
                }
                None => done,
            }
        });
    }
}

impl Services {
    /// Whether these digits were said.
    pub(super) async fn phrase_in(&self, findings: &Findings, digits: Vec<u8>) -> Result<PhraseEvidence, ScoreTrouble> {
        let (heard, _took_ms, _ahead) = self.heard_in(findings).await?;
        let numbers = Arc::clone(&self.numbers);
        self.inference.run(move || numbers.score_phrase(&heard, &digits)).await?.map_err(|e| speech_trouble(&e))
    }
}

impl Desk {
    /// Digits that this customer was never asked for, noted as used. `None`: none came up.
    async fn draw_challenge(&self, customer: &CustomerId, length: usize, now: Timestamp) -> Result<Option<Vec<u8>>, DeskError> {
        self.fresh(customer, now, || draw(self.entropy.as_ref(), length)).await
    }

    /// So many strings for an enrolment, never asked for before; fewer if none come up, which the dialogue takes for trouble.
    pub(super) async fn draw_for_enrolment(
        &self,
        customer: &CustomerId,
        strings: u32,
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, DeskError> {
        let mut drawn = Vec::new();
        for _ in 0..strings {
            drawn.extend(self.fresh(customer, now, || shuffled(self.entropy.as_ref())).await?);
        }
        Ok(drawn)
    }

    async fn fresh(
        &self,
        customer: &CustomerId,
        now: Timestamp,
        draw: impl Fn() -> Vec<u8>,
    ) -> Result<Option<Vec<u8>>, DeskError> {
        for _ in 0..DRAW_LIMIT {
            let digits = draw();
            if speakable(&digits)
                && self.store.use_challenge(customer, &self.vault.digest_challenge(customer, &digits), now).await?
            {
                return Ok(Some(digits));
            }
        }
        Ok(None)
    }
}

/// The ten digits in any order: a template should hold each of them as often as the others.
fn shuffled(entropy: &dyn Entropy) -> Vec<u8> {
    let mut left: Vec<u8> = (0..=9).collect();
    let mut digits = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let n = entropy.below(u32::try_from(left.len()).unwrap_or(u32::MAX));
        digits.push(left.swap_remove(usize::try_from(n).unwrap_or(0).min(left.len() - 1)));
    }
    digits
}

/// Digits of which no two neighbours are alike: "seven seven" is hard to count on a telephone.
fn draw(entropy: &dyn Entropy, length: usize) -> Vec<u8> {
    let mut digits: Vec<u8> = Vec::with_capacity(length);
    for _ in 0..length {
        let digit = match digits.last() {
            None => entropy.below(10),
            // One of the nine others.
            Some(last) => (u32::from(*last) + 1 + entropy.below(9)) % 10,
        };
        digits.push(u8::try_from(digit).unwrap_or(0));
    }
    digits
}

/// No counting up or down over four digits, no "1 2 1 2", and enough different digits to tell a voice by.
fn speakable(digits: &[u8]) -> bool {
    let step = |a: u8, b: u8| i16::from(b) - i16::from(a);
    let runs = digits.windows(4).any(|w| match w {
        [a, b, c, d] => {
            let first = step(*a, *b);
            (first.abs() == 1 && step(*b, *c) == first && step(*c, *d) == first) || (a == c && b == d)
        }
        _ => false,
    });
    let distinct = (0..=9).filter(|d| digits.contains(d)).count();
    !runs && distinct >= digits.len().div_ceil(2).min(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn drawn_digits_are_well_spread_and_no_two_neighbours_are_alike() {
        let entropy = SeededEntropy::new(3);
        let (mut counts, mut good) = ([0_u32; 10], 0);
        for _ in 0..2_000 {
            let digits = draw(&entropy, 8);
            assert!(digits.len() == 8 && digits.windows(2).all(|w| w[0] != w[1]) && digits.iter().all(|d| *d <= 9));
            good += u32::from(speakable(&digits));
            digits.iter().for_each(|d| counts[usize::from(*d)] += 1);
        }
        assert!(good > 1_700, "few are hard to say: {good}");
        assert!(counts.iter().all(|n| (1_400..1_800).contains(n)), "{counts:?}");
    }

    #[test]
    fn an_enrolment_asks_for_every_digit_once_in_any_order() {
        let entropy = SeededEntropy::new(4);
        let mut firsts = [0_u32; 10];
        for _ in 0..2_000 {
            let digits = shuffled(&entropy);
            firsts[usize::from(digits[0])] += 1;
            assert!(digits.len() == 10 && (0..=9).all(|d| digits.contains(&d)));
        }
        assert!(firsts.iter().all(|n| (140..260).contains(n)), "{firsts:?}");
    }

    #[test]
    fn what_is_hard_to_say_is_not_asked_for() {
        let hard = |text: &str| !speakable(&text.bytes().map(|b| b - b'0').collect::<Vec<_>>());
        assert!(hard("12345071") && hard("98760513") && hard("52323071") && hard("12131213"));
        assert!(!hard("50271946") && !hard("12805739"));
    }
}
