//! One delivery: signed with every secret that is good, sent once, and what came of it written down. Only a status of 2xx is an arrival, whatever
//! comes after it; redirects are not followed. 410 means that nobody wants to hear any more.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;

use super::lanes::Went;
use super::{Inner, Notifier, check_url};
use crate::clock::Timestamp;
use crate::gateway::http::{Client, OpenError};
use crate::gateway::tls;
use crate::ids::EndpointId;
use crate::signed::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign_shared};
use crate::store::{Delivery, DeliveryOutcome, Endpoint, StoreError};
use crate::telemetry::metrics::metrics;

/// A try that takes more than this part of the time that it may is slow.
const SLOW_PART: u32 = 4;
/// Of an endpoint's answer so much is remembered.
const ANSWER_LIMIT_CHARS: usize = 120;
/// Clients that are kept; beyond, all are made anew.
const CLIENT_LIMIT: usize = 1_024;

/// Speaks with one endpoint.
pub(super) struct Sender {
    client: Client,
    path: String,
}

impl Notifier {
    /// Sends a message to an endpoint now, once, whatever it hears of otherwise: to try it out. What it answered, in words.
    pub async fn try_endpoint(&self, id: &EndpointId) -> Result<Result<u16, String>, StoreError> {
        let inner = &*self.inner;
        let Some(endpoint) = inner.store.endpoint(id).await? else { return Err(StoreError::NotFound("endpoint")) };
        let now = inner.clock.now();
        let body = json!({ "type": "test", "timestamp": now.to_string(), "data": { "endpoint": id } }).to_string();
        let message = crate::ids::OutboxId::fresh_at(now, &*inner.entropy);
        Ok(inner.send(&endpoint, message.as_str(), body, now).await.map(|s| s.as_u16()))
    }
}

impl Inner {
    /// One try; how it went.
    pub(super) async fn deliver(&self, d: &Delivery) -> Went {
        let begun = Instant::now();
        match self.tried(d).await {
            Ok(true) if begun.elapsed() < Duration::from_millis(self.cfg.timeout_ms) / SLOW_PART => Went::Well,
            Ok(true) => Went::Slowly,
            Ok(false) => Went::Badly,
            // It is tried again when its lease has run out: it may arrive twice, under the same identifier.
            Err(error) => {
                tracing::warn!(%error, "what came of a delivery could not be written down");
                Went::Badly
            }
        }
    }

    async fn tried(&self, d: &Delivery) -> Result<bool, StoreError> {
        // Deleted since it was claimed, and the delivery with it.
        let Some(endpoint) = self.store.endpoint(&d.endpoint).await? else { return Ok(false) };
        let now = self.clock.now();
        let body = json!({ "type": d.news.topic, "timestamp": d.news.at.to_string(), "data": d.news.payload }).to_string();
        let answer = self.send(&endpoint, d.news.id.as_str(), body, now).await;
        let (outcome, words) = match answer {
            Ok(status) if status.is_success() => (DeliveryOutcome::Delivered, status.as_u16().to_string()),
            Ok(status) => (self.again(d.tries, status == StatusCode::GONE), status.as_u16().to_string()),
            Err(why) => (self.again(d.tries, false), why),
        };
        let word = match &outcome {
            DeliveryOutcome::Delivered => "delivered",
            DeliveryOutcome::Again(_) => "failed",
            DeliveryOutcome::Dead => "dead",
        };
        metrics().webhooks.inc([word]);
        let words: String = words.chars().take(ANSWER_LIMIT_CHARS).collect();
        self.store.finish_delivery(d, &outcome, &words, self.clock.now()).await?;
        Ok(outcome == DeliveryOutcome::Delivered)
    }

    /// When a delivery that failed is tried again, if ever.
    fn again(&self, failures: u32, gone: bool) -> DeliveryOutcome {
        if gone || failures >= self.cfg.max_tries {
            return DeliveryOutcome::Dead;
        }
        let pause = self.cfg.pause(failures);
        // Give or take a quarter, so that what failed together does not come back together.
        let half = u32::try_from(pause.as_millis() / 2).unwrap_or(u32::MAX).max(1);
        let jitter = Duration::from_millis(self.entropy.below(half).into());
        DeliveryOutcome::Again(self.clock.now().plus((pause - pause / 4).saturating_add(jitter)))
    }

    async fn send(&self, endpoint: &Endpoint, id: &str, body: String, now: Timestamp) -> Result<StatusCode, String> {
        let sender = self.sender(endpoint)?;
        let seconds = now.0.div_euclid(1_000);
        let mut signatures = Vec::with_capacity(endpoint.secrets.len());
        for secret in endpoint.secrets.iter().rev().filter(|s| s.until.is_none_or(|until| now < until)) {
            let sealed = hex::decode(&secret.sealed).map_err(|_| "the endpoint's secret is damaged".to_owned())?;
            let secret = self.vault.unseal_endpoint_secret(&endpoint.id, &sealed).map_err(|e| e.to_string())?;
            signatures.extend(sign_shared(&secret, id, seconds, body.as_bytes()));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(&sender.path)
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, seconds)
            .header(SIGNATURE_HEADER, signatures.join(" "));
        sender.client.status_of(request, Bytes::from(body)).await.map_err(|e| e.to_string())
    }

    fn sender(&self, endpoint: &Endpoint) -> Result<Arc<Sender>, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = clients.get(&endpoint.url) {
            return Ok(Arc::clone(sender));
        }
        let target = check_url(&endpoint.url, self.cfg.private_networks).map_err(|e| e.to_string())?;
        let path = target.path.clone();
        let at_once = usize::try_from(self.cfg.at_once.max(1)).unwrap_or(1);
        let client = Client::with(target, || self.roots(), self.cfg.timeout_ms, at_once).map_err(|e| match e {
            OpenError::Url(what) => what,
            OpenError::Roots(what) => {
                tracing::warn!(%what, "notify.roots_file can't be used: no endpoint is reached by https");
                format!("notify.roots_file: {what}")
            }
        })?;
        let client = if self.cfg.private_networks { client } else { client.screened(is_public) };
        if clients.len() >= CLIENT_LIMIT {
            clients.clear();
        }
        let sender = Arc::new(Sender { client, path });
        clients.insert(endpoint.url.clone(), Arc::clone(&sender));
        Ok(sender)
    }

    /// The authorities, read once for all endpoints; a file that can't be read is tried again with the next delivery.
    fn roots(&self) -> Result<Arc<ClientConfig>, String> {
        let mut read = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roots) = read.as_ref() {
            return Ok(Arc::clone(roots));
        }
        let roots = Arc::new(tls::believing(&self.cfg.roots_file)?.with_no_client_auth());
        *read = Some(Arc::clone(&roots));
        Ok(roots)
    }
}

/// Whether an address is one of the public internet: a tenant's URL must not reach what stands beside us (RFC 6890).
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b); // RFC 6598
            let reserved = a == 0 || a >= 240 || (a == 192 && b == 0) || (a == 198 && (b == 18 || b == 19));
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_documentation();
            !(local || shared || reserved)
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4() {
                return is_public(IpAddr::V4(v4));
            }
            // Global unicast only; of it not what carries IPv4 addresses or is for documents.
            let [first, second, ..] = v6.segments();
            let carries_v4 = first == 0x2002 || (first == 0x2001 && second == 0);
            (first & 0xe000) == 0x2000 && !carries_v4 && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_reached() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for ip in ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07::1"] {
            assert!(public(ip), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::1",
            "2001:db8::1",
            "64:ff9b::a00:1",
        ] {
            assert!(!public(ip), "{ip}");
        }
    }
}
