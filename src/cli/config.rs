//! `voicepay config`: is the configuration right, and what is in force.

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::config::DEFAULT_TOML;

/// Check or print the configuration.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay config check\n  voicepay --config new.toml config diff running.toml\n  voicepay --config prod.toml config print\n  voicepay config print --defaults > voicepay.toml"
)]
pub struct ConfigCmdArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say whether the configuration can be used; a mistake names its key and line.
    Check,
    /// What would become of a reload: which keys that differ from a running service's file change at once, and which need a restart.
    Diff {
        /// The file that the service runs by; the configuration to compare it with is named by --config, as always.
        running: std::path::PathBuf,
    },
    /// Print what is in force: defaults, file and environment together.
    Print {
        /// Print the defaults file with its comments instead.
        #[arg(long)]
        defaults: bool,
    },
}

/// Runs it.
pub fn run(args: ConfigCmdArgs, ctx: &Context) -> CliResult {
    match args.what {
        What::Check => {
            ctx.config()?;
            ctx.answer(&serde_json::json!({ "ok": true }), "The configuration is fine.");
        }
        What::Diff { running } => {
            let wrong = |e| CliError::new(Exit::Config, e);
            let running = crate::config::Config::load(Some(&running)).map_err(wrong)?;
            let (changes, _) = running.reloaded(&ctx.config()?).map_err(wrong)?;
            let json = serde_json::json!({ "live": changes.live, "restart": changes.restart });
            ctx.answer(&json, &changes.summary());
        }
        What::Print { defaults: true } => ctx.answer(&serde_json::json!({ "toml": DEFAULT_TOML }), DEFAULT_TOML.trim_end()),
        What::Print { defaults: false } => {
            let config = ctx.config()?;
            let json = serde_json::to_value(&config).map_err(|e| CliError::new(Exit::Config, e))?;
            ctx.answer(&json, config.to_toml().map_err(|e| CliError::new(Exit::Config, e))?.trim_end());
        }
    }
    Ok(())
}
