//! What the dialogue asks for and a model, the vault or the store answers: each a job of its own, so that frames, keys and
//! the hang-up are never kept waiting. A job ends in one [`Done`].

use std::sync::Arc;

use zeroize::Zeroizing;

use super::agreeing;
use super::ahead::Question;
use super::driver::Call;
use super::figures;
use super::timeline::Who;
use super::voice::{Claim, Compared, Other};
use crate::decision::{PhraseVerdict, VoiceAccepted, judge_phrase};
use crate::dialogue::{
    AnswerHeard, AnswerVoice, Consent, EnrolOutcome, IdentityOutcome, Input, InviteOutcome, NumberHeard, PaymentOutcome,
    ScoreTrouble, StoreOutcome,
};
use crate::e164::E164;
use crate::ids::{CardId, CustomerId, IntentId, PayeeId};
use crate::media::leg::{Leg, Sound};
use crate::secret::SecretBytes;
use crate::speech::SpeechError;
use crate::speech::turn::Readiness;
use crate::voiceprint::{EmbedError, Embedding, Take};

type Figures = serde_json::Map<String, serde_json::Value>;

/// How a job ended: lines for the timeline, what the call keeps, and what the dialogue is told.
pub(super) struct Done {
    pub(super) lines: Vec<(Who, String, Figures)>,
    pub(super) kept: Kept,
    pub(super) input: Option<Input>,
}

impl Done {
    pub(super) fn tell(input: Input) -> Self {
        Self { lines: Vec::new(), kept: Kept::Nothing, input: Some(input) }
    }

    pub(super) fn line(mut self, what: impl Into<String>, figures: Figures) -> Self {
        self.lines.push((Who::Check, what.into(), figures));
        self
    }

    pub(super) fn keep(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }
}

/// What a job leaves with the call.
pub(super) enum Kept {
    Nothing,
    /// The voice that was scored.
    Voice(Box<Embedding>),
    /// The voice that said fresh digits, and for how long.
    Fresh {
        embedding: Box<Embedding>,
        net_speech_ms: u32,
    },
    /// An utterance that belongs to the enrolment.
    Take(Box<Take>),
    /// Recorded names.
    Payees(Vec<(PayeeId, Arc<Sound>)>),
    /// Somebody who was called for the caller, and answered.
    Person(Box<Leg>),
    /// A one-time code that was sent: what is said is compared with it.
    Code(SecretBytes),
    /// A code that is right, to be spent when the template is stored.
    Invite(Zeroizing<String>),
    /// Work at a pause (turn and pause) is done; `None`: no thread was idle.
    Ahead {
        moment: (u64, u64),
        question: Question,
        ran: Option<Readiness>,
    },
}

impl Call {
    pub(super) fn look_up(&mut self, caller: Option<E164>, attested: bool, customer_number: Option<String>) {
        let (services, now) = (Arc::clone(&self.services), self.now());
        let vouched = agreeing::attested(&self.caller, customer_number.is_none());
        self.jobs.spawn(async move {
            let nominee = (caller.as_ref(), attested, customer_number.as_deref());
            let found = services.off_clock(services.desk.identify(nominee, vouched, now)).await;
            match found {
                Ok((outcome, clips)) => {
                    let line = match &outcome {
                        IdentityOutcome::Unknown => Some("nobody known by this number"),
                        IdentityOutcome::Shared => Some("more than one customer has this number"),
                        IdentityOutcome::Known(_) => None, // told by the call itself
                    };
                    let done = Done::tell(Input::Identity(outcome)).keep(Kept::Payees(clips));
                    match line {
                        Some(what) => done.line(what, Figures::new()),
                        None => done,
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a look-up failed");
                    Done::tell(Input::ServiceTrouble)
                }
            }
        });
    }

    /// While the caller pauses: sets idle threads to work on what will be asked about what was said so far. What is read there says how
    /// long the pause must last; it stays in memory.
    pub(super) fn work_ahead(&mut self) {
        let (Some(ahead), Some(hearing)) = (self.ahead.as_mut(), self.hearing.as_ref()) else { return };
        let moment = (self.turns, ahead.pause);
        for question in hearing.questions().iter().copied() {
            if ahead.has_begun(question) || !self.services.inference.is_idle() {
                continue;
            }
            let Some(lane) = self.lanes.enter(question) else { continue };
            let (services, findings, listen_for) =
                (Arc::clone(&self.services), Arc::clone(&ahead.findings), hearing.listen_for().clone());
            let job = self.jobs.spawn(async move {
                let ran = services.look_ahead(question, lane, &findings, &listen_for).await;
                Done { lines: Vec::new(), kept: Kept::Ahead { moment, question, ran }, input: None }
            });
            ahead.began(question, job);
        }
    }

    /// Whose voice the last utterance should be.
    pub(super) fn claim(&self, customer: CustomerId) -> Claim {
        let (caller, attested) = self.looked_up.clone();
        Claim { customer, caller, attested, now: self.now() }
    }

    pub(super) fn score_voice(&mut self, customer: CustomerId) {
        let (services, findings, claim) = (Arc::clone(&self.services), self.findings.clone(), self.claim(customer));
        self.jobs.spawn(async move {
            let trouble = |t| Done::tell(Input::VoiceScored(Err(t)));
            let Some(findings) = findings else { return trouble(ScoreTrouble::Failed) };
            match services.compare_voice(&claim, &findings).await {
                Ok(Compared { heard, embedding, what, figures }) => {
                    let done = Done::tell(Input::VoiceScored(Ok(heard))).line(what, figures);
                    match embedding {
                        Some(embedding) => done.keep(Kept::Voice(Box::new(embedding))),
                        None => done,
                    }
                }
                Err(t) => trouble(t),
            }
        });
    }

    pub(super) fn read_number(&mut self, accepted: VoiceAccepted, customer: CustomerId, cards: Vec<CardId>) {
        // Fresh digits may have been said since.
        let (services, findings) = (Arc::clone(&self.services), self.card.take());
        self.jobs.spawn(async move {
            let trouble = |t| Done::tell(Input::NumberRead(Err(t)));
            let Some(findings) = findings else { return trouble(ScoreTrouble::Failed) };
            let pans = match services.off_clock(services.desk.card_numbers(&customer, &cards)).await {
                Ok(pans) => pans,
                Err(error) => {
                    tracing::error!(%error, "card numbers could not be opened");
                    return trouble(ScoreTrouble::Failed);
                }
            };
            let (heard, hear_ms, ahead) = match services.heard_in(&findings).await {
                Ok(found) => found,
                Err(t) => return trouble(t),
            };
            let numbers = Arc::clone(&services.numbers);
            let begun = tokio::time::Instant::now();
            let scored = services.inference.run(move || (numbers.score(&accepted, &heard, &pans), accepted)).await;
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            match scored {
                Ok((Ok(evidence), accepted)) => {
                    let best = best_ratio(&evidence);
                    let t = services.policy.number;
                    let what =
                        format!("number: {best:.1} nats (accepted from {:.1}, rejected below {:.1})", t.accept_llr, t.reject_llr);
                    let numbers = figures([
                        ("number_llr", best.into()),
                        ("number_ms", took.into()),
                        ("hear_ms", hear_ms.into()),
                        ("heard_ahead", ahead.into()),
                    ]);
                    Done::tell(Input::NumberRead(Ok(NumberHeard { evidence, accepted }))).line(what, numbers)
                }
                Ok((Err(error), _)) => trouble(speech_trouble(&error)),
                Err(overload) => trouble(overload.into()),
            }
        });
    }

    pub(super) fn compare_keyed(
        &mut self,
        accepted: VoiceAccepted,
        customer: CustomerId,
        cards: Vec<CardId>,
        digits: SecretBytes,
    ) {
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            match services.off_clock(services.desk.compare_keyed(&customer, &cards, &digits)).await {
                Ok(evidence) => Done::tell(Input::NumberRead(Ok(NumberHeard { evidence, accepted })))
                    .line("the keyed number was compared by its digest", Figures::new()),
                Err(error) => {
                    tracing::error!(%error, "a keyed number could not be compared");
                    Done::tell(Input::NumberRead(Err(ScoreTrouble::Failed)))
                }
            }
        });
    }

    pub(super) fn read_answer(&mut self, voice: AnswerVoice) {
        let (services, findings, customer) = (Arc::clone(&self.services), self.findings.clone(), self.customer.clone());
        let other = match voice {
            AnswerVoice::Any => None,
            AnswerVoice::AsBefore => self.voice.clone().map(Other::Utterance),
            AnswerVoice::AsEnrolled(customer) => Some(Other::Template(self.claim(customer))),
        };
        self.jobs.spawn(async move {
            let trouble = |t| Done::tell(Input::Answer(Err(t)));
            let Some(findings) = findings else { return trouble(ScoreTrouble::Failed) };
            // Both may have been worked out at the pause already; else side by side.
            let cosine = async {
                match other {
                    Some(other) => services.likeness(&other, &findings).await.map(Some),
                    None => Ok(None),
                }
            };
            let reused = services.is_reused(&findings, customer.as_ref());
            let (answer, cosine, reused) = tokio::join!(services.answer_in(&findings), cosine, reused);
            let (answer, heard_before) = match (answer, reused) {
                (Ok(answer), Ok(reused)) => (answer, reused),
                (Err(t), _) | (_, Err(t)) => return trouble(t),
            };
            let continuity_cosine = match cosine {
                Ok(cosine) => cosine,
                // Too little sound for a voice is an answer by itself: no yes is taken on it.
                Err(ScoreTrouble::Unusable) => None,
                Err(t) => return trouble(t),
            };
            let mut numbers = figures([("answer", format!("{answer:?}").into())]);
            let mut what = format!("answer: {answer:?}");
            if let Some(cosine) = continuity_cosine {
                numbers.insert("continuity_cosine".into(), cosine.into());
                what = format!("{what}; same voice: {cosine:.2} (from {:.2})", services.voice.continuity_min_cosine);
            }
            Done::tell(Input::Answer(Ok(AnswerHeard { answer, continuity_cosine, heard_before }))).line(what, numbers)
        });
    }

    pub(super) fn redeem_invite(&mut self, customer: CustomerId, code: &SecretBytes) {
        let (services, now, strings) = (Arc::clone(&self.services), self.now(), self.config.enrol_strings());
        let code: Zeroizing<String> =
            Zeroizing::new(code.expose().iter().filter(|d| **d <= 9).map(|d| char::from(b'0' + d)).collect());
        self.jobs.spawn(async move {
            match services.off_clock(services.desk.check_invite(&customer, &code, now)).await {
                Ok(true) => match services.off_clock(services.desk.draw_for_enrolment(&customer, strings, now)).await {
                    Ok(challenges) => Done::tell(Input::InviteRedeemed(InviteOutcome::Accepted { challenges }))
                        .line("the invitation code is right", Figures::new())
                        .keep(Kept::Invite(code)),
                    Err(error) => {
                        tracing::error!(%error, "fresh digits could not be noted as used");
                        Done::tell(Input::InviteRedeemed(InviteOutcome::Trouble))
                    }
                },
                Ok(false) => Done::tell(Input::InviteRedeemed(InviteOutcome::Rejected))
                    .line("the invitation code is refused", Figures::new()),
                Err(error) => {
                    tracing::error!(%error, "an invitation could not be checked");
                    Done::tell(Input::InviteRedeemed(InviteOutcome::Trouble))
                }
            }
        });
    }

    pub(super) fn enrol_add(&mut self, digits: Vec<u8>) {
        let (services, findings, customer) = (Arc::clone(&self.services), self.findings.clone(), self.customer.clone());
        let (earlier, total) = (self.enrolment.clone(), self.enrolment.standing().net_speech_ms);
        self.jobs.spawn(async move {
            let answer = |outcome| Done::tell(Input::EnrolAdded(outcome));
            let Some(findings) = findings else { return answer(EnrolOutcome::Trouble(ScoreTrouble::Failed)) };
            let net_speech_ms = findings.utterance.net_speech_ms;
            if net_speech_ms < services.voice.min_net_speech_ms {
                return answer(EnrolOutcome::TooShort).line("too little speech to enrol", Figures::new());
            }
            let (voiced, content) = tokio::join!(services.voice_of(&findings), services.phrase_in(&findings, digits));
            let embedding = match voiced {
                Ok(voiced) => voiced.embedding,
                Err(ScoreTrouble::Unusable) => return answer(EnrolOutcome::TooShort),
                Err(t) => return answer(EnrolOutcome::Trouble(t)),
            };
            match content {
                // Only what was asked for a moment ago is sure to be said now. What can't be told is asked for again.
                Ok(content) => {
                    let numbers = figures([("phrase_llr", content.llr.into())]);
                    match judge_phrase(&services.policy, &content) {
                        PhraseVerdict::Accepted => {}
                        PhraseVerdict::Inconclusive => {
                            return answer(EnrolOutcome::OtherWords)
                                .line("unsure whether it is the digits that were asked for", numbers);
                        }
                        PhraseVerdict::Rejected => {
                            return answer(EnrolOutcome::OtherWords).line("not the digits that were asked for", numbers);
                        }
                    }
                }
                Err(t) => return answer(EnrolOutcome::Trouble(t)),
            }
            match services.is_reused(&findings, customer.as_ref()).await {
                Ok(false) => {}
                Ok(true) => return answer(EnrolOutcome::Disagrees),
                Err(t) => return answer(EnrolOutcome::Trouble(t)),
            }
            if let Some(agreement) = earlier.least_agreement(&embedding) {
                let least = services.voice.enrol_agree_min_cosine;
                if agreement.is_nan() || agreement < least {
                    return answer(EnrolOutcome::Disagrees).line(
                        format!("this utterance sounds unlike the earlier ones: {agreement:.2} (from {least:.2})"),
                        Figures::new(),
                    );
                }
            }
            let in_babble = match services.voice_in_babble(&findings).await {
                Ok(embedding) => embedding,
                Err(t) => return answer(EnrolOutcome::Trouble(t)),
            };
            let take = Box::new(Take::new(embedding, in_babble, net_speech_ms));
            let net_speech_total_ms = total.saturating_add(net_speech_ms);
            answer(EnrolOutcome::Added { net_speech_total_ms })
                .line(format!("taken: {:.1} s of speech so far", f64::from(net_speech_total_ms) / 1000.0), Figures::new())
                .keep(Kept::Take(take))
        });
    }

    pub(super) fn enrol_finish(&mut self, customer: CustomerId, consent: Consent) {
        let (services, now) = (Arc::clone(&self.services), self.now());
        let (made, invite, call) = (self.enrolment.finish(), self.invite.take(), self.id.clone());
        self.jobs.spawn(async move {
            let answer = |outcome| Done::tell(Input::EnrolStored(outcome));
            let (template, code) = match (made, invite) {
                (Ok(template), Some(code)) => (template, code),
                (Err(why), _) => return answer(StoreOutcome::Refused).line(format!("no template: {why}"), Figures::new()),
                (Ok(_), None) => return answer(StoreOutcome::Refused),
            };
            match services.off_clock(services.desk.store_enrolment(&call, &customer, &template, &code, &consent, now)).await {
                Ok(true) => answer(StoreOutcome::Stored).line(
                    format!("voice enrolled from {:.1} s of speech, sealed", f64::from(template.net_speech_ms()) / 1000.0),
                    Figures::new(),
                ),
                Ok(false) => answer(StoreOutcome::Refused),
                Err(error) => {
                    tracing::error!(%error, "a voice template could not be stored");
                    answer(StoreOutcome::Trouble)
                }
            }
        });
    }

    pub(super) fn await_payment(&mut self, intent: IntentId) {
        let services = Arc::clone(&self.services);
        self.jobs.spawn(async move {
            let outcome = services.outcome(&intent).await;
            let what = match &outcome {
                PaymentOutcome::Paid { .. } => "charged",
                PaymentOutcome::Declined => "declined by the acquirer",
                PaymentOutcome::Unknown => "the outcome is not known yet",
                PaymentOutcome::Refused | PaymentOutcome::NotSubmitted | PaymentOutcome::Waiting => "not charged",
            };
            let numbers = figures([("intent", intent.as_str().into())]);
            Done::tell(Input::Payment(outcome)).line(format!("payment {intent}: {what}"), numbers)
        });
    }
}

fn best_ratio(evidence: &crate::decision::NumberEvidence) -> f32 {
    match evidence {
        crate::decision::NumberEvidence::Spoken { cards, .. } => cards.iter().map(|c| c.llr).fold(f32::NEG_INFINITY, f32::max),
        crate::decision::NumberEvidence::Keyed { .. } => f32::NEG_INFINITY,
    }
}

pub(super) fn speech_trouble(error: &SpeechError) -> ScoreTrouble {
    match error {
        SpeechError::Overloaded { .. } => ScoreTrouble::Overloaded,
        SpeechError::Unusable(_) => ScoreTrouble::Unusable,
        SpeechError::ModelMissing(_)
        | SpeechError::ModelCorrupt { .. }
        | SpeechError::Head { .. }
        | SpeechError::Network(_)
        | SpeechError::Inference { .. } => {
            tracing::error!(%error, "recognition failed");
            ScoreTrouble::Failed
        }
    }
}

pub(super) fn embed_trouble(error: &EmbedError) -> ScoreTrouble {
    match error {
        EmbedError::TooShort { .. } | EmbedError::BadSound(_) => ScoreTrouble::Unusable,
        _other => {
            tracing::error!(%error, "an embedding failed");
            ScoreTrouble::Failed
        }
    }
}
