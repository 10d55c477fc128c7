//! localstripe: a stand-in for Stripe that others wrote. Started on a free port of this machine, ended with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A running localstripe. It ends when its standard input does, so also when this process dies.
#[derive(Debug)]
pub struct Localstripe {
    /// `127.0.0.1:PORT`.
    pub address: String,
    process: Child,
    _input: ChildStdin,
}

impl Localstripe {
    /// `None`, and a plain word about it, where it can't be installed.
    pub fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = Command::new(root.join("scripts/localstripe.sh")).output().unwrap();
        if !installed.status.success() {
            let why = String::from_utf8_lossy(&installed.stderr).into_owned();
            // In CI nothing may be skipped in silence.
            assert!(std::env::var_os("CI").is_none(), "localstripe can't be installed:\n{why}");
            eprintln!("SKIPPED: localstripe can't be installed here, so the Stripe wire is not tested against it:\n{why}");
            return None;
        }
        let python = String::from_utf8(installed.stdout).unwrap();
        let mut process = Command::new(python.trim())
            .arg(root.join("scripts/localstripe-serve.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("localstripe's port");
        Some(Self { address: format!("127.0.0.1:{port}"), process, _input: input })
    }
}

impl Drop for Localstripe {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}
