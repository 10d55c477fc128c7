//! One-time codes: drawn, kept as a keyed digest, handed over sealed to whoever delivers messages; a new one voids the old one. What is
//! tried is written down before it is answered, so that of tries that come at once each counts.

use serde_json::json;

use super::Agreements;
use crate::ids::{CodeId, RequestId};
use crate::payment::code::{self, CODE_LIMIT_SENT, CODE_SENT_WINDOW, CodeState};
use crate::payment::{Binding, CodeChecked, OneTimeCode, PaymentRequest};
use crate::secret::SecretBytes;
use crate::store::papers::{self, CodeDelivery};
use crate::store::{Document, StoreError, UnlockError};
use crate::vault::VaultError;

/// How often a try is begun anew because another one came between.
const LIMIT_RACES: u32 = 8;

/// A code was sent.
#[derive(Debug)]
pub struct CodeSent {
    /// Which one.
    pub id: CodeId,
    /// Its digit values, for the call that hears it said; for nobody else.
    pub digits: SecretBytes,
}

/// What asking for a code came to.
#[derive(Debug)]
pub enum CodeOutcome {
    /// It is on its way.
    Sent(CodeSent),
    /// Too many were sent for this payment in the last hour.
    TooMany,
}

/// Why a code could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<UnlockError> for CodeError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::Vault(e) => Self::Vault(e),
            UnlockError::Store(e) => Self::Store(e),
        }
    }
}

/// How many tries are left, in words for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeTold {
    /// Right.
    Good,
    /// Wrong, and so many tries are left.
    Wrong(u32),
    /// There is no code that could be tried.
    Dead,
}

impl Agreements {
    /// Sends the payer a code for this request; an older one is worth nothing from then on.
    pub async fn send_code(&self, request: &PaymentRequest) -> Result<CodeOutcome, CodeError> {
        let inner = &*self.inner;
        let (store, now) = (&*inner.store, inner.clock.now());
        let older: Vec<OneTimeCode> = papers::about(store, request.id.as_str()).await?;
        let sent = store.codes_sent(&request.id, now.minus(CODE_SENT_WINDOW)).await?;
        if sent >= CODE_LIMIT_SENT {
            return Ok(CodeOutcome::TooMany);
        }
        let id = CodeId::fresh_at(now, &*inner.entropy);
        let digits = SecretBytes::new(code::draw(&*inner.entropy).to_vec());
        let digest = inner.vault.digest_code(&request.customer, Binding::of(request).as_str(), digits.expose());
        let new = OneTimeCode::new(id.clone(), request, &digest, now);
        let key = crate::store::customer_key_to_seal(store, &inner.vault, &request.customer).await?;
        let delivery = CodeDelivery {
            code: id.clone(),
            customer: request.customer.clone(),
            sealed: key.seal_code(&id, digits.expose())?,
            expires_at: new.expires_at,
            tries: 0,
        };
        let mut rows = older.into_iter().map(|c| c.end(now).paper()).collect::<Result<Vec<_>, _>>()?;
        rows.push(new.paper()?);
        let told = json!({ "code": id, "request": request.id, "customer": request.customer });
        let audit = inner.audit(now, "agreement", "code.sent", request.id.as_str(), told.clone());
        store.write_papers(&rows, &[delivery], &[audit], &[inner.news(now, "code.sent", told)]).await?;
        Ok(CodeOutcome::Sent(CodeSent { id, digits }))
    }

    /// Tries digit values as the code of this request; right ones are used up.
    pub async fn check_code(&self, request: &PaymentRequest, digits: &[u8]) -> Result<CodeTold, CodeError> {
        Ok(self.try_code(request, digits).await?.1)
    }

    /// The same, and which code it was.
    pub(super) async fn try_code(
        &self,
        request: &PaymentRequest,
        digits: &[u8],
    ) -> Result<(Option<CodeId>, CodeTold), CodeError> {
        let inner = &*self.inner;
        let digest = inner.vault.digest_code(&request.customer, Binding::of(request).as_str(), digits);
        for _ in 0..LIMIT_RACES {
            let now = inner.clock.now();
            let live: Vec<OneTimeCode> = papers::about(&*inner.store, request.id.as_str()).await?;
            let Some(code) = live.into_iter().find(|c| c.customer == request.customer) else { return Ok((None, CodeTold::Dead)) };
            let id = code.id.clone();
            let (after, checked) = code.check(now, request, &digest);
            let told = match checked {
                CodeChecked::Dead => return Ok((None, CodeTold::Dead)),
                CodeChecked::Good => CodeTold::Good,
                CodeChecked::Wrong { left } => CodeTold::Wrong(left),
            };
            let word = match after.state {
                CodeState::Used => "code.right",
                CodeState::Spent => "code.spent",
                CodeState::Live | CodeState::Voided | CodeState::Expired => "code.wrong",
            };
            let audit = inner.audit(now, "agreement", word, request.id.as_str(), json!({ "code": id }));
            match papers::write(&*inner.store, &after, &audit, &[]).await {
                // Another try came between: it counts, and so does this one.
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| (Some(id), told))?),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// The code that a request waits for, if it can still be tried.
    pub async fn live_code(&self, request: &RequestId) -> Result<Option<OneTimeCode>, StoreError> {
        let now = self.inner.clock.now();
        let live: Vec<OneTimeCode> = papers::about(&*self.inner.store, request.as_str()).await?;
        Ok(live.into_iter().find(|c| now < c.expires_at))
    }
}
