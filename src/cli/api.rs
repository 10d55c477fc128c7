//! `voicepay api`: the API without a telephone, and its description.

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::Context;
use super::exit::CliResult;
use super::serve::{harden, runtime, start_error, told_to_stop};
use crate::app::ApiService;
use crate::clock::{SystemClock, SystemEntropy};
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay api`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  VOICEPAY__API__LISTEN=127.0.0.1:8443 voicepay api serve\n  voicepay api describe > openapi.json\n\n`voicepay serve` answers the API, too, where `api.listen` is set."
)]
pub struct ApiArgs {
    #[command(subcommand)]
    command: ApiCommand,
}

#[derive(Debug, Subcommand)]
enum ApiCommand {
    /// Answer the API and work on payments; take no calls, load no models.
    Serve,
    /// Print the description: OpenAPI 3.1.
    Describe,
}

/// Runs it.
pub fn run(args: ApiArgs, ctx: &Context) -> CliResult {
    match args.command {
        ApiCommand::Describe => {
            let document = crate::api::document();
            let text = serde_json::to_string_pretty(&document).unwrap_or_else(|_| document.to_string());
            ctx.answer(&document, &text);
            Ok(())
        }
        ApiCommand::Serve => serve(ctx),
    }
}

fn serve(ctx: &Context) -> CliResult {
    let config = ctx.config()?;
    telemetry::init(if ctx.json { LogFormat::Json } else { LogFormat::Text }, &config.service.log);
    harden();
    runtime()?.block_on(async {
        let service = ApiService::start(&config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.map_err(start_error)?;
        let address = service.address();
        let scheme = if config.api.certificate.is_some() { "https" } else { "http" };
        let event = serde_json::json!({ "event": "listening", "api": address.to_string() });
        ctx.answer(&event, &format!("The API is answered at {scheme}://{address}/v1/docs; Ctrl-C stops it."));
        told_to_stop().await?;
        service.stop().await;
        Ok(())
    })
}
