//! The bank on a Unix socket: it lives in the parent process and outlives every kill, so that a request which left is acted on though its sender
//! is dead. One line of JSON asks, one answers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use super::acts::BankSide;
use super::bank::{Bank, Say, Wire};
use super::dice::Dice;
use voicepay::gateway::{Gateway, GatewayRequest};
use voicepay::payment::BankWord;

/// Longer than anybody waits for an answer.
const TOO_LATE_MS: u64 = 60_000;
/// How long the bank takes at most, in milliseconds.
const BANK_MS: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Send(Wire),
    Resolve(String),
    News,
    Settle(String, bool),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Say(Say),
    News(Option<(String, Say)>),
    Yes(bool),
}

/// The bank's side; it stops listening when dropped.
pub struct Counter {
    path: PathBuf,
    over: Arc<AtomicBool>,
    /// How many it is serving.
    serving: Arc<AtomicUsize>,
}

impl Counter {
    pub fn open(path: &Path, bank: Arc<Bank>, seed: u64) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let dice = Arc::new(Mutex::new(Dice::new(seed)));
        let serving = Arc::new(AtomicUsize::new(0));
        let (ended, busy) = (over.clone(), serving.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (bank, dice, busy) = (bank.clone(), dice.clone(), busy.clone());
                busy.fetch_add(1, Ordering::SeqCst);
                // Whoever asked may be dead by now: the bank does what it was asked for all the same.
                std::thread::spawn(move || {
                    drop(serve(stream, &bank, &dice));
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { path: path.to_owned(), over, serving }
    }

    /// Waits until everything that ever left for the bank has arrived: what the dead have sent, too.
    pub fn quiet(&self) {
        // Served in the order in which they came: whoever came before this one is being served, or was.
        Customer::of(&self.path).ask_now(&Ask::News).unwrap();
        while self.serving.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path)); // wakes the listener
    }
}

fn serve(stream: UnixStream, bank: &Bank, dice: &Mutex<Dice>) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let mut dice = {
        let mut shared = dice.lock().unwrap_or_else(PoisonError::into_inner);
        Dice::new(shared.next())
    };
    // Half a line: its sender was killed in the middle.
    let Ok(ask) = serde_json::from_str::<Ask>(&line) else { return Ok(()) };
    let mut pause = || std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(BANK_MS)).unwrap_or(0)));
    let answer = match ask {
        Ask::Send(wire) => {
            pause();
            let said = bank.send(&wire);
            pause();
            Answer::Say(said)
        }
        Ask::Resolve(reference) => Answer::Say(bank.resolve(&reference, &mut dice)),
        Ask::News => Answer::News(bank.news(&mut dice)),
        Ask::Settle(reference, done) => Answer::Yes(bank.settle(&reference, done)),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    (&stream).write_all(text.as_bytes())
}

/// A node's side.
#[derive(Clone, Debug)]
pub struct Customer {
    path: PathBuf,
}

impl Customer {
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    async fn ask(&self, ask: &Ask) -> std::io::Result<Answer> {
        let mut stream = tokio::net::UnixStream::connect(&self.path).await?;
        let mut text = serde_json::to_string(ask)?;
        text.push('\n');
        stream.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        tokio::io::BufReader::new(&mut stream).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }

    fn ask_now(&self, ask: &Ask) -> Option<Answer> {
        let mut stream = UnixStream::connect(&self.path).ok()?;
        let mut text = serde_json::to_string(ask).ok()?;
        text.push('\n');
        stream.write_all(text.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    async fn word(&self, ask: Ask) -> BankWord {
        match self.ask(&ask).await {
            Ok(Answer::Say(Say::Late(_))) => {
                tokio::time::sleep(Duration::from_millis(TOO_LATE_MS)).await;
                BankWord::Silence
            }
            Ok(Answer::Say(say)) => say.word(),
            Ok(Answer::News(_) | Answer::Yes(_)) | Err(_) => BankWord::Silence,
        }
    }
}

#[async_trait]
impl Gateway for Customer {
    fn name(&self) -> &'static str {
        "sandbox"
    }
    async fn send(&self, request: &GatewayRequest) -> BankWord {
        self.word(Ask::Send(Wire::of(request))).await
    }
    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.word(Ask::Resolve(request.our_reference.clone())).await
    }
}

impl BankSide for Customer {
    fn news(&self, _: &mut Dice) -> Option<(String, Say)> {
        match self.ask_now(&Ask::News) {
            Some(Answer::News(news)) => news,
            _ => None,
        }
    }
    fn settle(&self, reference: &str, done: bool) -> bool {
        matches!(self.ask_now(&Ask::Settle(reference.into(), done)), Some(Answer::Yes(true)))
    }
}
