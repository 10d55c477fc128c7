//! Links by which somebody who was asked says yes or no. A link names approval or purchase, person and end, and is signed, so that nobody
//! else can make one; what it may say once, the approval or purchase knows.

use std::collections::BTreeSet;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use super::{Agreements, Inner};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CodeId, CustomerId, PurchaseId};
use crate::payment::{Approval, Purchase};
use crate::store::papers::{CodeDelivery, LinkAbout, LinkMessage};
use crate::store::{StoreError, UnlockError, customer_key_to_seal};

/// Bytes of the signature that a link carries.
const MAC_BYTES: usize = 16;
/// No link of ours is longer.
const LIMIT_CHARS: usize = 256;

/// Why a link says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not one of ours, or was changed.
    #[error("this link is not valid")]
    Forged,
    /// Its time is over.
    #[error("this link has expired")]
    Expired,
}

impl Agreements {
    /// The token of a link for somebody who was asked.
    pub fn link(&self, approval: &ApprovalId, who: &CustomerId, until: Timestamp) -> String {
        self.sign(approval.as_str(), who, until)
    }

    /// What a token says.
    pub fn open_link(&self, token: &str) -> Result<(ApprovalId, CustomerId), LinkError> {
        self.read_link(token)
    }

    /// The token of a purchase's confirmation page: its customer's alone, as long as it may be confirmed.
    pub fn page_link(&self, purchase: &Purchase) -> String {
        self.sign(purchase.id.as_str(), &purchase.customer, purchase.expires_at)
    }

    /// Which purchase a page is for, and who may confirm it there.
    pub fn open_page_link(&self, token: &str) -> Result<(PurchaseId, CustomerId), LinkError> {
        self.read_link(token)
    }

    /// Where a token's page is, if the configuration says where people reach us.
    pub fn url(&self, token: &str) -> Option<String> {
        let begins = self.inner.cfg.public_url.trim_end_matches('/');
        (!begins.is_empty()).then(|| format!("{begins}/l/{token}"))
    }

    /// What goes to each who is asked: their own link, sealed until it is sent. Nothing where no links are made.
    pub(super) async fn links_to_parties(&self, approval: &Approval, now: Timestamp) -> Result<Vec<CodeDelivery>, StoreError> {
        let mut all = Vec::new();
        let whom: BTreeSet<&CustomerId> = approval.parties.iter().map(|p| &p.who).collect();
        for who in whom {
            let token = self.link(&approval.id, who, approval.expires_at);
            all.extend(self.link_to(who, LinkAbout::Approval, &token, approval.expires_at, now).await?);
        }
        Ok(all)
    }

    /// A link on its way to somebody, if links are made and something can be sealed for them.
    pub(super) async fn link_to(
        &self,
        who: &CustomerId,
        about: LinkAbout,
        token: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<CodeDelivery>, StoreError> {
        let Some(url) = self.url(token) else { return Ok(None) };
        let inner: &Inner = &self.inner;
        let message = LinkMessage { about, url }.to_bytes()?;
        let id = CodeId::fresh_at(now, &*inner.entropy);
        let sealed = match customer_key_to_seal(&*inner.store, &inner.vault, who).await {
            // Erased, with their key: nobody is there to be told, and others may still be asked.
            Err(UnlockError::Store(StoreError::NotFound(_))) => return Ok(None),
            Err(UnlockError::Store(error)) => return Err(error),
            done => done.and_then(|key| Ok(key.seal_code(&id, &message)?)),
        };
        match sealed {
            Ok(sealed) => Ok(Some(CodeDelivery { code: id, customer: who.clone(), sealed, expires_at, tries: 0 })),
            Err(error) => {
                tracing::warn!(customer = %who, %error, "a link could not be sealed, and is not sent");
                Ok(None)
            }
        }
    }

    /// Identifiers of two kinds never look alike, so that no link opens what it was not made for.
    fn sign(&self, what: &str, who: &CustomerId, until: Timestamp) -> String {
        let says = format!("{what} {who} {}", until.0);
        let mac = self.inner.vault.sign_link(says.as_bytes());
        let mut bytes = says.into_bytes();
        bytes.extend(mac.into_iter().take(MAC_BYTES));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read_link<T: FromStr>(&self, token: &str) -> Result<(T, CustomerId), LinkError> {
        if token.len() > LIMIT_CHARS {
            return Err(LinkError::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| LinkError::Forged)?;
        let cut = bytes.len().checked_sub(MAC_BYTES).ok_or(LinkError::Forged)?;
        let (says, given) = bytes.split_at_checked(cut).ok_or(LinkError::Forged)?;
        let mac = self.inner.vault.sign_link(says);
        let ours = mac.get(..MAC_BYTES).ok_or(LinkError::Forged)?;
        if !bool::from(ours.ct_eq(given)) {
            return Err(LinkError::Forged);
        }
        let text = std::str::from_utf8(says).map_err(|_| LinkError::Forged)?;
        let mut parts = text.split(' ');
        let (Some(what), Some(who), Some(until), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(LinkError::Forged);
        };
        let what = what.parse().map_err(|_| LinkError::Forged)?;
        let who = CustomerId::parse(who).map_err(|_| LinkError::Forged)?;
        let until = until.parse().map(Timestamp).map_err(|_| LinkError::Forged)?;
        if self.inner.clock.now() >= until { Err(LinkError::Expired) } else { Ok((what, who)) }
    }
}
