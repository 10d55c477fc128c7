//! The `voicepay` command: everything is in the library.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(voicepay::cli::main())
}
