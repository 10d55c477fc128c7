//! Hands rows of the outbox out: finds whose each is and who wants to hear of it. What keeps its order is what it is about: the request
//! that is paid, before anything else that it names.

use std::collections::HashMap;

use serde_json::Value;

use super::Notifier;
use crate::ids::{CustomerId, PayeeId, RequestId, Tenant};
use crate::store::{Handed, OutboxRecord, Store, StoreError};

/// Rows that one round hands out.
const BATCH: u32 = 256;
/// What a row may be about, in this order.
const SUBJECTS: [&str; 8] = ["request", "intent", "approval", "mandate", "guardianship", "supervision", "customer", "reference"];

impl Notifier {
    /// Hands out what waits; says how many rows.
    pub(super) async fn hand_out(&self) -> Result<usize, StoreError> {
        let inner = &*self.inner;
        let store = &*inner.store;
        let rows = store.outbox_waiting(BATCH).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let endpoints = store.endpoints(None).await?;
        let mut known = HashMap::new();
        let mut handed = Vec::with_capacity(rows.len());
        for row in &rows {
            // Where nobody listens, nobody needs to know whose it is.
            let tenant =
                if endpoints.iter().any(|e| e.hears(&row.topic)) { tenant_of(store, row, &mut known).await? } else { None };
            let to = endpoints.iter().filter(|e| tenant.as_ref() == Some(&e.tenant) && e.hears(&row.topic)).map(|e| e.id.clone());
            handed.push(Handed { outbox: row.id.clone(), subject: subject_of(row), to: to.collect() });
        }
        store.hand_out(&handed, inner.clock.now()).await?;
        Ok(rows.len())
    }
}

fn subject_of(row: &OutboxRecord) -> String {
    let named = SUBJECTS.iter().find_map(|key| row.payload.get(*key).and_then(Value::as_str));
    named.unwrap_or(row.id.as_str()).to_owned()
}

/// Whose news it is, by the customer, the payee or the request that it names; `None`: the operator's own.
async fn tenant_of(
    store: &dyn Store,
    row: &OutboxRecord,
    known: &mut HashMap<String, Option<Tenant>>,
) -> Result<Option<Tenant>, StoreError> {
    for key in ["customer", "ward", "account", "payee", "request"] {
        let Some(id) = row.payload.get(key).and_then(Value::as_str) else { continue };
        if let Some(tenant) = known.get(id) {
            return Ok(tenant.clone());
        }
        let tenant = if let Ok(customer) = CustomerId::parse(id) {
            store.customer(&customer).await?.map(|c| c.tenant)
        } else if let Ok(payee) = PayeeId::parse(id) {
            store.payee(&payee).await?.map(|p| p.tenant)
        } else if let Ok(request) = RequestId::parse(id) {
            match store.request(&request).await? {
                Some(found) => store.payee(&found.request.payee).await?.map(|p| p.tenant),
                None => None,
            }
        } else {
            continue;
        };
        known.insert(id.to_owned(), tenant.clone());
        return Ok(tenant);
    }
    Ok(None)
}
