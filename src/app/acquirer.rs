//! What the acquirer tells without being asked.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Office, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::gateway::{GatewayError, GatewayKind, stripe};

/// Hears what the acquirer tells, where it tells anything, until the payment worker is stopped.
pub(super) async fn listen_to_acquirer(
    config: &Config,
    office: &Office,
    clock: Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Option<tokio::task::JoinHandle<()>>, StartError> {
    let listening = match (config.gateway.kind, &office.desk) {
        (GatewayKind::Stripe, _) => {
            let env = |name: &str| std::env::var(name).ok();
            stripe::webhook::listen(&config.gateway.stripe, env, clock, stop.clone()).await.map_err(GatewayError::from)?
        }
        (GatewayKind::BankFeedback, Some(desk)) => Some(desk.listen(stop.clone()).await.map_err(GatewayError::from)?),
        (GatewayKind::Sandbox | GatewayKind::Iso8583 | GatewayKind::BankFeedback, _) => None,
    };
    Ok(listening.map(|listening| {
        tracing::info!(address = %listening.address, "what the acquirer tells is heard");
        let (processor, stop) = (office.processor.clone(), stop.clone());
        tokio::spawn(async move { processor.listen(listening.news, stop).await })
    }))
}
