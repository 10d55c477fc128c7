//! Voices: invitations to enrol, enrolment from recordings, consent, withdrawal.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::NotEnrolled;
use super::ask::{Answer, Ask, created, ok, page};
use super::people::of_caller;
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{Name, Nothing, When, Word, whole};
use crate::clock::{Entropy, Timestamp};
use crate::ids::{CustomerId, InviteId};
use crate::store::consents::WRITTEN_CONSENT;
use crate::store::{Consenting, Customer, CustomerStatus, Invite, Invited, StoreError};

/// For how many hours an invitation is good.
pub struct Hours(u32);

const HOURS: std::ops::RangeInclusive<u32> = 1..=720;

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let hours = u32::try_from(whole(d)?).ok().filter(|hours| HOURS.contains(hours));
        hours.map(Self).ok_or_else(|| serde::de::Error::custom("hours are 1 to 720"))
    }
}

impl Shape for Hours {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "minimum": HOURS.start(), "maximum": HOURS.end() })
    }
}

/// Recordings that one enrolment takes at most.
const RECORDINGS_LIMIT: usize = 10;

/// RFC 4648 §4, as strictly as it is read: padded, and no bits but zeros in the padding (§3.5).
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)$";

/// Whole WAV files.
pub struct Recordings(Vec<Vec<u8>>);

impl<'de> Deserialize<'de> for Recordings {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let texts = Vec::<String>::deserialize(d)?;
        if !(1..=RECORDINGS_LIMIT).contains(&texts.len()) {
            return Err(D::Error::custom("there must be 1 to 10 recordings"));
        }
        let file = |text: &String| STANDARD.decode(text).ok().filter(|file| !file.is_empty());
        let files: Option<_> = texts.iter().map(file).collect();
        files.map(Self).ok_or_else(|| D::Error::custom("a recording is a WAV file in base64"))
    }
}

impl Shape for Recordings {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "array", "minItems": 1, "maxItems": RECORDINGS_LIMIT,
            "items": { "type": "string", "contentEncoding": "base64", "contentMediaType": "audio/wav",
                "pattern": BASE64 } })
    }
}

shape! {
    /// An invitation to enrol in a call.
    input NewInvite {
        /// For so many hours it is good: 72 if absent.
        valid_hours: Option<Hours>,
    }
}

shape! {
    /// An invitation. Give the code to the customer out of band; it is shown here alone.
    output InviteView {
        /// Which one.
        id: InviteId,
        /// For whom, and nobody else.
        customer: CustomerId,
        /// Eight digits, good once.
        code: String,
        /// From then on it is worth nothing.
        expires_at: When,
    }
}

shape! {
    /// An invitation and what became of it; never its code, which was shown once.
    output InvitationView {
        /// Which one.
        id: InviteId,
        /// For whom.
        customer: CustomerId,
        /// `open`, `used` (a voice was enrolled by it), `ended` (taken back, or another took its place) or `expired`.
        state: Word,
        /// From then on it is worth nothing.
        expires_at: When,
        /// Wrong codes that were keyed while it was open; after three (`dialogue.invite_code_limit_tries`) it is worth nothing.
        wrong_tries: u32,
        /// When it was used.
        used_at: Option<When>,
        /// When it was taken back or replaced.
        ended_at: Option<When>,
    }
}

shape! {
    /// An enrolment from recordings.
    input NewEnrolment {
        /// Who vouches that the customer agreed, and how; it is kept.
        consent_by: Name,
        /// Mono 16-bit WAV files of 8, 16 or 48 kHz, one utterance each, in base64.
        recordings: Recordings,
    }
}

shape! {
    /// What is known of a customer's voice: that there is one, never what it is.
    output VoiceView {
        /// Whose.
        customer: CustomerId,
        /// Whether a template is stored.
        enrolled: bool,
        /// Which model made it.
        model: Option<String>,
        /// When it was made.
        since: Option<When>,
        /// When the customer agreed that the template follows the voice, if so.
        follows_since: Option<When>,
        /// Until when an invitation is open, if one is.
        invited_until: Option<When>,
    }
}

shape! {
    /// The customer agrees that the template follows the voice by small steps.
    input Consent {
        /// Who vouches that the customer agreed, and how; it is kept.
        consent_by: Name,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{CustomersRead, EnrolmentsWrite};
    vec![
        Route::get::<VoiceView>("/customers/{id}/voice", "getVoice", CustomersRead, run!(voice), "Whether a voice is enrolled."),
        Route::delete::<VoiceView>(
            "/customers/{id}/voice",
            "deleteVoice",
            EnrolmentsWrite,
            run!(withdraw),
            "Erases the voice template; cards and payments stay.",
        ),
        Route::post::<NewInvite, InviteView>(
            "/customers/{id}/invitations",
            "invite",
            EnrolmentsWrite,
            run!(invite),
            "Makes a single-use code with which the customer enrols in a call. It ends an older one.",
        ),
        Route::get::<Page<InvitationView>>(
            "/customers/{id}/invitations",
            "listInvitations",
            CustomersRead,
            run!(invitations),
            "A customer's invitations, open and past ones as long as they are kept; who runs out last first.",
        ),
        Route::delete::<InvitationView>(
            "/customers/{id}/invitations/{invite}",
            "endInvitation",
            EnrolmentsWrite,
            run!(uninvite),
            "Takes an invitation back: its code is worth nothing any more. One that is over stays as it is.",
        ),
        Route::post::<NewEnrolment, VoiceView>(
            "/customers/{id}/enrolments",
            "enrol",
            EnrolmentsWrite,
            run!(enrol),
            "Enrols a voice from recordings. 409 if they make no voice template, or where no model is loaded.",
        )
        .upload(),
        Route::post::<Consent, VoiceView>(
            "/customers/{id}/voice/following",
            "follow",
            EnrolmentsWrite,
            run!(follow),
            "Records the customer's consent that the template follows the voice.",
        )
        .giving(200),
        Route::delete::<VoiceView>(
            "/customers/{id}/voice/following",
            "unfollow",
            EnrolmentsWrite,
            run!(unfollow),
            "The consent is withdrawn: the template stays as it is.",
        ),
        Route::post::<Nothing, VoiceView>(
            "/customers/{id}/voice/revert",
            "revertVoice",
            EnrolmentsWrite,
            run!(revert),
            "Goes back to the voice as it was enrolled; following ends with it.",
        )
        .giving(200),
    ]
}

async fn active(ask: &Ask) -> Result<Customer, Problem> {
    let found = of_caller(ask, &ask.id(0, "customer")?).await?;
    if found.status == CustomerStatus::Active { Ok(found) } else { Err(Problem::conflict("the customer is blocked")) }
}

async fn view(ask: &Ask, customer: CustomerId) -> Result<VoiceView, Problem> {
    let store = &ask.shared.store;
    let following = store.following(&customer).await?;
    let open = store.open_invite(&customer, ask.shared.clock.now()).await?;
    Ok(VoiceView {
        customer,
        enrolled: following.is_some(),
        model: following.as_ref().map(|f| f.current.model.clone()),
        since: following.as_ref().map(|f| f.enrolled.created_at.into()),
        follows_since: following.and_then(|f| f.consent_at).map(When),
        invited_until: open.map(|i| i.expires_at.into()),
    })
}

async fn voice(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    ok(&view(ask, customer.id).await?)
}

async fn withdraw(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?.id;
    let audit = ask.audit("voice.withdrawn", customer.as_str(), json!({}));
    match ask.shared.store.delete_template(&customer, &audit).await {
        // Taken away already: the same again does no harm.
        Ok(()) | Err(StoreError::NotFound(_)) => ok(&view(ask, customer).await?),
        Err(error) => Err(error.into()),
    }
}

async fn follow(ask: &Ask) -> Result<Answer, Problem> {
    let consent: Consent = ask.input()?;
    let customer = active(ask).await?.id;
    let audit = ask.audit("voice.may_follow", customer.as_str(), json!({ "consent_by": &consent.consent_by.0 }));
    let given = Consenting { text_version: WRITTEN_CONSENT.into(), by: consent.consent_by.0, at: ask.now, call: None };
    ask.shared.store.set_following(&customer, Some(&given), &audit).await?;
    ok(&view(ask, customer).await?)
}

async fn unfollow(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?.id;
    let audit = ask.audit("voice.stays", customer.as_str(), json!({}));
    ask.shared.store.set_following(&customer, None, &audit).await?;
    ok(&view(ask, customer).await?)
}

async fn revert(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?.id;
    let audit = ask.audit("voice.reverted", customer.as_str(), json!({}));
    ask.shared.store.revert_template(&customer, &audit).await?;
    ok(&view(ask, customer).await?)
}

/// How often a code is drawn: another customer may have the same one open.
const DRAWS: u32 = 5;

async fn invite(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewInvite = ask.input()?;
    let customer = active(ask).await?.id;
    let expires_at = ask.now.plus(Duration::from_secs(u64::from(new.valid_hours.map_or(72, |h| h.0)) * 3_600));
    let (store, entropy): (_, &dyn Entropy) = (&ask.shared.store, &ask.entropy);
    for left in (0..DRAWS).rev() {
        let code = format!("{:08}", entropy.below(100_000_000));
        let invite = Invite { id: InviteId::fresh(entropy), customer: customer.clone(), expires_at, wrong_tries: 0 };
        let made = |invite: Invite| InviteView {
            id: invite.id,
            customer: invite.customer,
            code: code.clone(),
            expires_at: invite.expires_at.into(),
        };
        if let Some(there) = store.invitation(&invite.id).await? {
            return created(&made(there.invite)); // made when this was asked before, whatever became of it
        }
        let audit = ask.audit("enrolment.invited", invite.id.as_str(), json!({ "customer": customer }));
        match store.add_invite(&invite, &ask.shared.vault.digest_invite_code(&code), &audit).await {
            Ok(()) => return created(&made(invite)),
            Err(StoreError::Exists(_)) if left > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::unavailable("no free code was found: ask again"))
}

fn invitation_view(found: Invited, now: Timestamp) -> InvitationView {
    InvitationView {
        state: Word(found.state(now)),
        id: found.invite.id,
        customer: found.invite.customer,
        expires_at: found.invite.expires_at.into(),
        wrong_tries: found.invite.wrong_tries,
        used_at: found.used_at.map(When),
        ended_at: found.ended_at.map(When),
    }
}

async fn invitations(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let (all, now) = (ask.shared.store.invites_of(&customer.id).await?, ask.shared.clock.now());
    page(all.into_iter().map(|found| invitation_view(found, now)).collect(), None)
}

async fn uninvite(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?.id;
    let (store, id) = (&ask.shared.store, ask.id::<InviteId>(1, "invitation")?);
    let of_path = async || {
        let found = store.invitation(&id).await?.filter(|found| found.invite.customer == customer);
        found.ok_or_else(|| Problem::not_found("invitation"))
    };
    of_path().await?;
    // Over already, or somebody was faster: the same again does no harm.
    store.end_invite(&id, &ask.audit("enrolment.uninvited", id.as_str(), json!({ "customer": customer }))).await?;
    ok(&invitation_view(of_path().await?, ask.shared.clock.now()))
}

async fn enrol(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewEnrolment = ask.input()?;
    let customer = active(ask).await?.id;
    let none = || Problem::conflict("no voice model is loaded in this process: ask one that takes calls");
    let enroller = ask.shared.enroller.as_ref().ok_or_else(none)?;
    match enroller.enrol(&customer, &new.consent_by.0, &ask.actor(), new.recordings.0).await {
        Ok(_enrolled) => created(&view(ask, customer).await?),
        Err(NotEnrolled::Recordings(why)) => Err(Problem::conflict(why)),
        Err(e @ NotEnrolled::Busy) => Err(Problem { retry_after_s: Some(5), ..Problem::unavailable(e.to_string()) }),
        Err(e @ NotEnrolled::Failed(_)) => Err(Problem::internal(&e)),
    }
}
