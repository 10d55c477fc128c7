//! For tests: a host that answers as it is told to, request by request, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does with the next request.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// Answers with this status and body.
    Say(u16, String),
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// Closes the connection once the request is there.
    Hang,
    /// Never answers.
    Sleep,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// `POST /v1/refunds`.
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let wanted = name.to_ascii_lowercase();
        self.head
            .lines()
            .find_map(|l| l.split_once(':').filter(|(n, _)| n.to_ascii_lowercase() == wanted).map(|(_, v)| v.trim().to_owned()))
    }
}

#[derive(Debug)]
pub(super) struct Stub {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// Answers request after request by the script; past its end with 500.
    pub(super) async fn start(script: Vec<Do>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        tokio::spawn(async move {
            let mut script = script.into_iter();
            while let Ok((stream, _)) = socket.accept().await {
                let next = script.next().unwrap_or(Do::Say(500, r#"{"error":{"type":"api_error"}}"#.into()));
                tokio::spawn(serve(stream, next, all.clone()));
            }
        });
        Self { url, asked }
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.line).collect()
    }
}

async fn serve(mut stream: TcpStream, what: Do, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut bytes = Vec::new();
    let (head, mut body) = loop {
        let mut part = [0u8; 4096];
        let n = stream.read(&mut part).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            break (head.to_owned(), body.as_bytes().to_vec());
        }
    };
    let length = |l: &str| l.to_ascii_lowercase().strip_prefix("content-length:").and_then(|v| v.trim().parse::<usize>().ok());
    let wanted = head.lines().find_map(length).unwrap_or(0);
    while body.len() < wanted {
        let mut part = [0u8; 4096];
        let n = stream.read(&mut part).await.unwrap_or(0);
        if n == 0 {
            break;
        }
        body.extend_from_slice(&part[..n]);
    }
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    asked.lock().unwrap().push(Asked { line, head, body: String::from_utf8_lossy(&body).into_owned() });
    match what {
        Do::Say(status, text) => {
            let answer = format!("HTTP/1.1 {status} X\r\nRequest-Id: req_1\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
        Do::Raw(bytes) => {
            let _gone = stream.write_all(&bytes).await;
        }
        Do::Hang => {}
        Do::Sleep => tokio::time::sleep(std::time::Duration::from_secs(600)).await,
    }
}
