//! The command line: a file a subcommand, one table of exit codes, one way to print an error.

pub mod account;
pub mod answer;
pub mod api;
pub mod api_key;
pub mod approvals;
pub mod audit;
pub mod bank;
pub mod books;
pub mod calibrate;
pub mod call;
pub mod callbacks;
pub mod calls;
pub mod card;
pub mod config;
pub mod consents;
pub mod customer;
mod data;
pub mod db;
pub mod decision;
pub mod demo;
pub mod doctor;
pub mod enrol;
pub mod eval;
pub mod exit;
pub mod gateway;
pub mod guardian;
pub mod keys;
pub mod mandates;
pub mod models;
mod outbound;
pub mod payee;
pub mod payments;
pub mod policy;
pub mod receipt;
pub mod request;
pub mod retention;
pub mod serve;
pub mod supervisor;
pub mod tenant;
pub mod trunk;
pub mod vault;
pub mod webhooks;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use exit::{CliError, Exit};

/// What every subcommand is told.
#[derive(Debug, Clone)]
pub struct Context {
    /// `--json`: answers as JSON on standard output.
    pub json: bool,
    /// `--config FILE`, if given.
    pub config_path: Option<PathBuf>,
}

impl Context {
    /// The configuration in force: defaults, then the file, then the environment.
    pub fn config(&self) -> Result<crate::config::Config, CliError> {
        crate::config::Config::load(self.config_path.as_deref()).map_err(|e| CliError::new(Exit::Config, e))
    }

    /// Prints an answer: `json` as one line under `--json`, else `text`.
    pub fn answer(&self, json: &serde_json::Value, text: &str) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        // A reader that has gone away (`| head`) is no error of ours.
        let _gone = if self.json { writeln!(out, "{json}") } else { writeln!(out, "{text}") };
    }
}

/// IVR voice payments: a caller is known by voice, says a card number, and is charged once.
#[derive(Debug, Parser)]
#[command(name = "voicepay", version, propagate_version = true)]
#[command(
    after_help = "Examples:\n  voicepay demo                 four real calls on this machine, from enrolment to receipt\n  voicepay doctor               what is missing here, and how to mend it\n  voicepay serve                take calls\n\nExit codes: 0 well, 2 usage, 10 config, 11 model missing, 12 model corrupt, 13 database, 14 port, 15 audio,\n16 master key, 17 download, 18 refused, 19 call, 20 demo, 21 doctor, 22 eval, 23 trunk, 24 gateway, 25 audit, 1 anything else."
)]
pub struct Cli {
    /// Answer in JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    /// Configuration file (default: ./voicepay.toml if there is one, else the built-in defaults).
    #[arg(long, global = true, value_name = "FILE", env = "VOICEPAY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take calls.
    Serve(serve::ServeArgs),
    /// Answer calls with a prompt, for load tests.
    Answer(answer::AnswerArgs),
    /// Show it all on this machine: four real calls.
    Demo(demo::DemoArgs),
    /// Place a call with the built-in softphone.
    Call(call::CallArgs),
    /// List trunks, and try one out.
    Trunk(trunk::TrunkArgs),
    /// Try the acquirer out.
    Gateway(gateway::GatewayArgs),
    /// Add, list, show, export or delete customers.
    Customer(customer::CustomerArgs),
    /// Give a customer a card.
    Card(card::CardArgs),
    /// Add somebody who gets paid.
    Payee(payee::PayeeArgs),
    /// Ask a customer for money.
    Request(request::RequestArgs),
    /// Rules on who has to say yes to a payment: check, show, explain.
    Policy(policy::PolicyArgs),
    /// Who looks after whose payments.
    Guardian(guardian::GuardianArgs),
    /// Who has to agree to whose payments.
    Supervisor(supervisor::SupervisorArgs),
    /// What several people have to agree to, and what each said.
    Approvals(approvals::ApprovalsArgs),
    /// Which payees may be paid again without the card number.
    Mandates(mandates::MandatesArgs),
    /// What customers agreed to, and taking it back.
    Consents(consents::ConsentsArgs),
    /// How long what is held of people is kept, and erasing what is over its time.
    Retention(retention::RetentionArgs),
    /// Main accounts, permissions to ask for money from them, and purchases.
    Account(account::AccountArgs),
    /// Enrol a voice: by invitation, or from recordings.
    Enrol(enrol::EnrolArgs),
    /// Versions of the master key: status, rotation, retirement.
    Vault(vault::VaultArgs),
    /// Bring the database up to date, back it up, restore and check it.
    Db(db::DbArgs),
    /// What was charged; refunds, captures, voids, disputes, conflicts.
    Payments(payments::PaymentsArgs),
    /// Receipts that anyone can check.
    Receipt(receipt::ReceiptArgs),
    /// Seal, export, prove and verify the log of every decision and money movement.
    Audit(audit::AuditArgs),
    /// Public keys of whatever is signed here.
    Keys(keys::KeysArgs),
    /// Prove the books.
    Books(books::BooksArgs),
    /// A bank that announces deductions: its messages in quarantine, the end of its day.
    Bank(bank::BankArgs),
    /// Where tenants are told, what they were told, and what did not arrive.
    Webhooks(webhooks::WebhooksArgs),
    /// Which calls there were, and what happened in one.
    Calls(calls::CallsArgs),
    /// Calls that we owe to those who have to agree to a payment.
    Callbacks(callbacks::CallbacksArgs),
    /// Answer the API without a telephone; print its description.
    Api(api::ApiArgs),
    /// Keys of the API.
    ApiKey(api_key::ApiKeyArgs),
    /// Tenants: whose customers and payees are nothing to others.
    Tenant(tenant::TenantArgs),
    /// Fetch and verify the speech models.
    Models(models::ModelsArgs),
    /// Check or print the configuration.
    Config(config::ConfigCmdArgs),
    /// What is missing on this machine, and how to mend it.
    Doctor(doctor::DoctorArgs),
    /// Thresholds in force, and what other ones would have decided.
    Decision(decision::DecisionArgs),
    /// Make the file that turns scores into likelihood ratios and thresholds.
    Calibrate(calibrate::CalibrateArgs),
    /// Measure voice and number recognition on files.
    Eval(eval::EvalArgs),
}

/// Parses the arguments, runs the command, and returns the process's exit code.
pub fn main() -> u8 {
    let cli = Cli::parse();
    let ctx = Context { json: cli.json, config_path: cli.config };
    let result = match cli.command {
        Command::Serve(a) => serve::run(a, &ctx),
        Command::Answer(a) => answer::run(a, &ctx),
        Command::Demo(a) => demo::run(a, &ctx),
        Command::Call(a) => call::run(a, &ctx),
        Command::Trunk(a) => trunk::run(a, &ctx),
        Command::Gateway(a) => gateway::run(a, &ctx),
        Command::Customer(a) => customer::run(a, &ctx),
        Command::Card(a) => card::run(a, &ctx),
        Command::Payee(a) => payee::run(a, &ctx),
        Command::Request(a) => request::run(a, &ctx),
        Command::Policy(a) => policy::run(a, &ctx),
        Command::Guardian(a) => guardian::run(a, &ctx),
        Command::Supervisor(a) => supervisor::run(a, &ctx),
        Command::Approvals(a) => approvals::run(a, &ctx),
        Command::Mandates(a) => mandates::run(a, &ctx),
        Command::Consents(a) => consents::run(a, &ctx),
        Command::Retention(a) => retention::run(a, &ctx),
        Command::Account(a) => account::run(a, &ctx),
        Command::Enrol(a) => enrol::run(a, &ctx),
        Command::Vault(a) => vault::run(a, &ctx),
        Command::Db(a) => db::run(a, &ctx),
        Command::Payments(a) => payments::run(a, &ctx),
        Command::Receipt(a) => receipt::run(a, &ctx),
        Command::Audit(a) => audit::run(a, &ctx),
        Command::Keys(a) => keys::run(a, &ctx),
        Command::Books(a) => books::run(a, &ctx),
        Command::Bank(a) => bank::run(a, &ctx),
        Command::Webhooks(a) => webhooks::run(a, &ctx),
        Command::Calls(a) => calls::run(a, &ctx),
        Command::Callbacks(a) => callbacks::run(&a, &ctx),
        Command::Api(a) => api::run(a, &ctx),
        Command::ApiKey(a) => api_key::run(a, &ctx),
        Command::Tenant(a) => tenant::run(a, &ctx),
        Command::Models(a) => models::run(a, &ctx),
        Command::Config(a) => config::run(a, &ctx),
        Command::Doctor(a) => doctor::run(a, &ctx),
        Command::Decision(a) => decision::run(a, &ctx),
        Command::Calibrate(a) => calibrate::run(a, &ctx),
        Command::Eval(a) => eval::run(a, &ctx),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            report(&ctx, &error);
            error.exit as u8
        }
    }
}

fn report(ctx: &Context, error: &CliError) {
    if ctx.json {
        let line = serde_json::json!({ "error": error.message, "exit": error.exit as u8 });
        eprintln!("{line}");
    } else {
        eprintln!("voicepay: {error}");
    }
}

#[cfg(test)]
mod tests {
    /// What clap finds wrong with a command it tells only when that command is called.
    #[test]
    fn every_command_is_well_formed() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
