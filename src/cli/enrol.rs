//! `voicepay enrol`: enrols a voice, by an invitation that the customer uses in a call, or from recordings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::customer::parse_id;
use super::data::{Data, block_on, name, refused, store_error, unlock_error, vault_error};
use super::exit::{CliError, CliResult, Exit};
use crate::call::heard_before::ReuseConfig;
use crate::clock::{Entropy, Timestamp};
use crate::ids::{CustomerId, InviteId};
use crate::media::wav;
use crate::models::{Model, ModelError};
use crate::speech::Utterance;
use crate::store::consents::WRITTEN_CONSENT;
use crate::store::{
    self, Consenting, CustomerStatus, EnrolmentRecord, FingerprintRecord, Invite, Invited, StoreError, TemplateRecord,
};
use crate::vault::{CustomerKey, Vault};
use crate::voiceprint::fingerprint::{FingerprintKey, Fingerprinter, Probe};
use crate::voiceprint::{Embedder, Enrolment, Take, Template, VoiceConfig};

/// Arguments of `voicepay enrol`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay enrol invite --customer cus_0123…\n  voicepay enrol invitations --customer cus_0123…     open and past ones, never a code\n  voicepay enrol uninvite inv_0123…                   its code is worth nothing any more\n  voicepay enrol from-wav --customer cus_0123… --consent-by 'J. Clerk, form 118' one.wav two.wav three.wav\n  voicepay enrol withdraw --customer cus_0123…\n  voicepay enrol follow --customer cus_0123… --consent-by 'J. Clerk, form 119'\n  voicepay enrol revert --customer cus_0123…\n\nGive the code to the customer out of band, never in the call that it is for: a calling number proves nothing."
)]
pub struct EnrolArgs {
    #[command(subcommand)]
    command: EnrolCommand,
}

#[derive(Debug, Subcommand)]
enum EnrolCommand {
    /// Make a single-use code with which the customer enrols in a call. It is shown once and ends an older one.
    Invite {
        /// For whom.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// How long the code is good.
        #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=720))]
        valid_hours: u32,
    },
    /// A customer's invitations, open and past ones as long as they are kept (retention.invitations_days). Never a code.
    Invitations {
        /// Whose.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Take an invitation back: its code is worth nothing any more. One that is over stays as it is.
    Uninvite {
        /// Its identifier.
        id: String,
    },
    /// Erase a customer's voice template; cards and payments stay.
    Withdraw {
        /// Whose voice.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Let a customer's template follow the voice by small steps, or no longer; `revert` undoes the steps. Without --consent-by: no longer.
    Follow {
        /// Whose voice.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// Who vouches that the customer agreed, and how; it is kept.
        #[arg(long, value_name = "NAME")]
        consent_by: Option<String>,
    },
    /// Go back to the voice as it was enrolled; following ends with it.
    Revert {
        /// Whose voice.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Enrol from recordings of the customer's voice.
    FromWav {
        /// Whose voice.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// Who vouches that the customer agreed, and how; it is kept.
        #[arg(long, value_name = "NAME")]
        consent_by: String,
        /// Mono 16-bit WAV files of 8, 16 or 48 kHz, one utterance each.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs it.
pub fn run(args: EnrolArgs, ctx: &Context) -> CliResult {
    block_on(async {
        match args.command {
            EnrolCommand::Invite { customer, valid_hours } => invite(ctx, &parse_id(&customer)?, valid_hours).await,
            EnrolCommand::Invitations { customer } => invitations(ctx, &parse_id(&customer)?).await,
            EnrolCommand::Uninvite { id } => uninvite(ctx, &InviteId::parse(&id).map_err(refused)?).await,
            EnrolCommand::Withdraw { customer } => withdraw(ctx, &parse_id(&customer)?).await,
            EnrolCommand::Follow { customer, consent_by } => follow(ctx, &parse_id(&customer)?, consent_by.as_deref()).await,
            EnrolCommand::Revert { customer } => revert(ctx, &parse_id(&customer)?).await,
            EnrolCommand::FromWav { customer, consent_by, files } => {
                from_wav(ctx, &parse_id(&customer)?, &name(&consent_by)?, &files).await
            }
        }
    })
}

async fn active(data: &Data, customer: &CustomerId) -> Result<(), CliError> {
    match data.store.customer(customer).await.map_err(store_error)? {
        Some(c) if c.status == CustomerStatus::Active => Ok(()),
        Some(c) => Err(refused(format!("customer {customer} is {}", c.status.as_str()))),
        None => Err(refused(format!("there is no customer {customer}: see `voicepay customer list`"))),
    }
}

async fn invite(ctx: &Context, customer: &CustomerId, valid_hours: u32) -> CliResult {
    let data = Data::open(ctx).await?;
    active(&data, customer).await?;
    let vault = data.vault().await?;
    let expires_at = data.now().plus(Duration::from_secs(u64::from(valid_hours) * 3600));
    // Another customer may have the code open; with eight digits that is rare.
    const DRAWS: u32 = 5;
    for left in (0..DRAWS).rev() {
        let code = format!("{:08}", data.entropy.below(100_000_000));
        let invite = Invite { id: InviteId::fresh(&*data.entropy), customer: customer.clone(), expires_at, wrong_tries: 0 };
        let audit = data.audit("enrolment.invited", invite.id.as_str(), json!({ "customer": customer }));
        match data.store.add_invite(&invite, &vault.digest_invite_code(&code), &audit).await {
            Ok(()) => {
                let json =
                    json!({ "invite": invite.id, "customer": customer, "code": code, "expires_at": expires_at.to_string() });
                ctx.answer(&json, &format!("{code}\ngood once, until {expires_at}; it is not shown again"));
                return Ok(());
            }
            Err(StoreError::Exists(_)) if left > 0 => {}
            Err(e) => return Err(store_error(e)),
        }
    }
    Err(CliError::new(Exit::Unexpected, "no free invitation code was found; try again"))
}

fn invited_json(found: &Invited, now: Timestamp) -> Value {
    json!({ "invite": found.invite.id, "customer": found.invite.customer, "state": found.state(now),
        "expires_at": found.invite.expires_at.to_string(), "wrong_tries": found.invite.wrong_tries,
        "used_at": found.used_at.map(|at| at.to_string()), "ended_at": found.ended_at.map(|at| at.to_string()) })
}

fn invited_line(found: &Invited, now: Timestamp) -> String {
    let end = match (found.used_at, found.ended_at) {
        (Some(at), _) => format!("used {at}"),
        (None, Some(at)) => format!("ended {at}"),
        (None, None) => format!("{} {}", if found.open(now) { "open until" } else { "expired" }, found.invite.expires_at),
    };
    let wrong = found.invite.wrong_tries;
    let wrong = if wrong == 0 { String::new() } else { format!("  wrong tries: {wrong}") };
    format!("{}  {end}{wrong}", found.invite.id)
}

async fn invitations(ctx: &Context, customer: &CustomerId) -> CliResult {
    let data = Data::open(ctx).await?;
    if data.store.customer(customer).await.map_err(store_error)?.is_none() {
        return Err(refused(format!("there is no customer {customer}: see `voicepay customer list`")));
    }
    let (all, now) = (data.store.invites_of(customer).await.map_err(store_error)?, data.now());
    let text = all.iter().map(|found| invited_line(found, now)).collect::<Vec<_>>().join("\n");
    let text = if text.is_empty() { "no invitations: `voicepay enrol invite`".to_owned() } else { text };
    ctx.answer(&json!({ "invitations": all.iter().map(|found| invited_json(found, now)).collect::<Vec<_>>() }), &text);
    Ok(())
}

async fn uninvite(ctx: &Context, id: &InviteId) -> CliResult {
    let data = Data::open(ctx).await?;
    let find = async || {
        let found = data.store.invitation(id).await.map_err(store_error)?;
        found.ok_or_else(|| refused(format!("there is no invitation {id}: see `voicepay enrol invitations`")))
    };
    let customer = find().await?.invite.customer;
    let audit = data.audit("enrolment.uninvited", id.as_str(), json!({ "customer": customer }));
    data.store.end_invite(id, &audit).await.map_err(store_error)?;
    let (found, now) = (find().await?, data.now());
    ctx.answer(&invited_json(&found, now), &invited_line(&found, now));
    Ok(())
}

async fn withdraw(ctx: &Context, customer: &CustomerId) -> CliResult {
    let data = Data::open(ctx).await?;
    let audit = data.audit("voice.withdrawn", customer.as_str(), json!({}));
    data.store.delete_template(customer, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "customer": customer, "withdrawn": true }), &format!("the voice of {customer} is erased"));
    Ok(())
}

async fn follow(ctx: &Context, customer: &CustomerId, consent_by: Option<&str>) -> CliResult {
    let data = Data::open(ctx).await?;
    active(&data, customer).await?;
    let vouched = |by| Consenting { text_version: WRITTEN_CONSENT.into(), by, at: data.now(), call: None };
    let given = consent_by.map(name).transpose()?.map(vouched);
    let action = if given.is_some() { "voice.may_follow" } else { "voice.stays" };
    let audit = data.audit(action, customer.as_str(), json!({ "consent_by": given.as_ref().map(|g| &g.by) }));
    data.store.set_following(customer, given.as_ref(), &audit).await.map_err(store_error)?;
    let says = if given.is_some() { "may follow" } else { "no longer follows" };
    ctx.answer(
        &json!({ "customer": customer, "follows": given.is_some() }),
        &format!("the template of {customer} {says} the voice"),
    );
    Ok(())
}

async fn revert(ctx: &Context, customer: &CustomerId) -> CliResult {
    let data = Data::open(ctx).await?;
    let audit = data.audit("voice.reverted", customer.as_str(), json!({}));
    data.store.revert_template(customer, &audit).await.map_err(store_error)?;
    ctx.answer(
        &json!({ "customer": customer, "reverted": true }),
        &format!("{customer} has the enrolled voice again, and it stays"),
    );
    Ok(())
}

async fn from_wav(ctx: &Context, customer: &CustomerId, consent_by: &str, files: &[PathBuf]) -> CliResult {
    let data = Data::open(ctx).await?;
    active(&data, customer).await?;
    let vault = data.vault().await?;
    // The recordings are looked at before the model is loaded: a wrong file is told in milliseconds.
    let utterances = files.iter().map(|f| read(f)).collect::<Result<Vec<_>, _>>()?;
    let template = template_of(files, &utterances, ctx.config()?.voice, &*data.entropy)?;
    let model = template.model().as_str().to_owned();
    let now = data.now();
    let key = store::customer_key_to_seal(&*data.store, &vault, customer).await.map_err(unlock_error)?;
    let record = EnrolmentRecord {
        template: TemplateRecord {
            customer: customer.clone(),
            sealed: key.seal_template(&model, &template.to_bytes()).map_err(vault_error)?,
            model: model.clone(),
            created_at: now,
        },
        invite: None,
        consent_text_version: WRITTEN_CONSENT.into(),
        consent_by: consent_by.to_owned(),
        consent_at: now,
        call: None,
    };
    let audit = data.audit("voice.enrolled", customer.as_str(), json!({ "model": model, "recordings": files.len() }));
    data.store.complete_enrolment(&record, &audit).await.map_err(store_error)?;
    remember(&data, &vault, &key, customer, &utterances, &ctx.config()?.reuse).await?;
    let json =
        json!({ "customer": customer, "model": model, "net_speech_ms": template.net_speech_ms(), "recordings": files.len() });
    let seconds = f64::from(template.net_speech_ms()) / 1000.0;
    ctx.answer(&json, &format!("voice of {customer} enrolled from {} recordings, {seconds:.1} s of speech", files.len()));
    Ok(())
}

/// Whoever plays one of these recordings into a call is known by it.
async fn remember(
    data: &Data,
    vault: &Vault,
    seal: &CustomerKey,
    customer: &CustomerId,
    utterances: &[Utterance],
    config: &ReuseConfig,
) -> Result<(), CliError> {
    let (maker, key) = (Fingerprinter::new(), FingerprintKey::new(&vault.fingerprint_key(customer)));
    let now = data.now();
    for utterance in utterances {
        let probe = Probe::new(&maker, &utterance.samples_16k, &key);
        let sealed = seal.seal_fingerprint(&probe.fingerprint().to_bytes()).map_err(vault_error)?;
        let kept = FingerprintRecord { customer: customer.clone(), sealed, heard_at: now, expires_at: config.expiry(now) };
        data.store.keep_fingerprint(&kept, config.keep_limit_utterances).await.map_err(store_error)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Utterance, CliError> {
    let sound = wav::read_wav(path).map_err(|e| CliError::new(Exit::Audio, e))?;
    wav::check_speech(&sound).map_err(|e| CliError::new(Exit::Audio, format!("{}: {e}", path.display())))?;
    Ok(Utterance::from_recording(&sound.samples, sound.rate))
}

fn template_of(
    files: &[PathBuf],
    utterances: &[Utterance],
    cfg: VoiceConfig,
    entropy: &dyn Entropy,
) -> Result<Template, CliError> {
    let path = Model::CampPlus.checked_path().map_err(|e| {
        let missing = matches!(e, ModelError::Missing { .. });
        CliError::new(if missing { Exit::ModelMissing } else { Exit::ModelCorrupt }, e)
    })?;
    let embedder = Embedder::load(&path).map_err(|e| CliError::new(Exit::ModelCorrupt, e))?;
    let mut enrolment = Enrolment::new(cfg);
    for (file, utterance) in files.iter().zip(utterances) {
        let audio = |e: &dyn std::fmt::Display| CliError::new(Exit::Audio, format!("{}: {e}", file.display()));
        let seed = u64::from_le_bytes(entropy.bytes());
        let take = Take::of(&embedder, &utterance.samples_16k, utterance.net_speech_ms, seed).map_err(|e| audio(&e))?;
        enrolment.add(take).map_err(|e| audio(&e))?;
    }
    enrolment.finish().map_err(|e| CliError::new(Exit::Audio, format!("the recordings make no voice template: {e}")))
}
