//! How many calls a core: many sessions over real UDP on loopback, a prompt played and audio received in each, against a peer
//! in a process of its own. Ignored in ordinary runs: it takes a minute and wants the machine to itself. Run it with `CALLS=400
//! cargo test --lib media::rtp_session::load::calls -- --ignored --nocapture`.

use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket as StdSocket;
use std::process::{Command, Stdio};
use tokio::time::Instant as Clock;

use super::*;
use crate::clock::SystemEntropy;
use crate::media::frame::SampleRate;
use crate::media::leg::{Attestation, CallerClaim, LegCommand, LegEvent, LegInfo, Sound, pair};

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[allow(unsafe_code)] // getrusage on a struct of ours
fn cpu() -> Duration {
    // SAFETY: plain numbers, filled by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1_000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute"]
async fn calls() {
    let (calls, seconds, flood) = (number("CALLS", 400), number("SECONDS", 20), number("FLOOD", 0));
    let mut peer = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "media::rtp_session::load::peer"])
        .env("LOAD_PEER", "1")
        .env("FLOOD", flood.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(peer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let remote: SocketAddr = told.find_map(|l| l.split_once("PEER ").map(|(_, at)| at.trim().parse().unwrap())).unwrap();
    let config = MediaConfig { port_min: 20_000, port_max: 27_999, ..MediaConfig::default() };
    // PROMPT_HZ=16000: resampled by every call for itself, as a prompt would be that nobody brought to the leg's rate.
    let rate = SampleRate::new(number("PROMPT_HZ", 8_000) as u32).unwrap();
    let wave = (0..rate.hz() * 10).map(|n| (9_000.0 * (f64::from(n) * 0.21).sin()) as i16).collect();
    let prompt = Arc::new(Sound { rate, samples: wave });
    // What a process has anyway is not a call's: one session first.
    let mut sessions = Vec::new();
    let mut before = 0;
    let mut ports = Vec::new();
    for n in 0..=calls {
        if n == 1 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            before = resident_bytes();
        }
        let socket = bind_port(&config, &SystemEntropy).await.unwrap();
        ports.push(socket.local_addr().unwrap().port());
        let info = LegInfo {
            protocol_id: "load".into(),
            caller: CallerClaim::Withheld,
            attestation: Attestation::Absent,
            called: "pay".into(),
            peer: remote.to_string(),
            trunk: "load".into(),
            transport: "none",
            secure: false,
            setup_ms: 0,
            rate: SampleRate::HZ_8000,
            codec: "PCMU",
        };
        let (mut leg, far) = pair(info);
        let media = NegotiatedMedia::new(Codec::Pcmu, 0).with_telephone_event(101, 8_000);
        let setup =
            SessionSetup { port: socket.into(), ssrc: None, remote, signalled: None, media, far, stop: CancellationToken::new() };
        let session = start(&config, setup, &SystemEntropy);
        let prompt = prompt.clone();
        let call = tokio::spawn(async move {
            let play = || LegCommand::Play { id: 1, audio: prompt.clone() };
            leg.commands.send(play()).await.unwrap();
            let mut frames = 0u64;
            while let Some(event) = leg.events.recv().await {
                match event {
                    LegEvent::Frame(frame) => frames += u64::from(frame.samples.iter().any(|s| *s != 0)),
                    LegEvent::PlayEnded { .. } => drop(leg.commands.send(play()).await),
                    _ => {}
                }
            }
            frames
        });
        sessions.push((session, call));
    }
    let mut stdin = peer.stdin.take().unwrap();
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    writeln!(stdin, "{seconds} {}", list.join(" ")).unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (from, began) = (cpu(), Clock::now());
    tokio::time::sleep(Duration::from_secs(seconds as u64 - 2)).await;
    let (used, took) = (cpu() - from, began.elapsed());
    let memory = (resident_bytes() - before) / calls.max(1);
    println!(
        "{calls} calls: {:.1} % of a core, {:.3} % a call, {} kB a call",
        100.0 * used.as_secs_f64() / took.as_secs_f64(),
        100.0 * used.as_secs_f64() / took.as_secs_f64() / calls as f64,
        memory / 1_000
    );
    for line in told.by_ref().filter(|l| l.starts_with("peer:")) {
        println!("{line}");
    }
    peer.wait().unwrap();
    let mut stats = MediaStats::default();
    let mut loud = 0;
    for (session, call) in sessions {
        session.control().end(LegEnd::Caller);
        let report = session.finished().await.stats;
        stats.packets_received += report.packets_received;
        stats.packets_lost += report.packets_lost;
        stats.packets_late += report.packets_late;
        stats.packets_foreign += report.packets_foreign;
        stats.packets_sent += report.packets_sent;
        stats.packets_unsent += report.packets_unsent;
        stats.rtcp_sent += report.rtcp_sent;
        stats.concealed_ms += report.concealed_ms;
        stats.frames_dropped += report.frames_dropped;
        stats.max_jitter_ms = stats.max_jitter_ms.max(report.max_jitter_ms);
        loud += call.await.unwrap();
    }
    println!("ours: frames heard {loud}, {stats:?}");
}

/// The other end of all calls: one socket that sends to each and receives from each, and times the gaps by the kernel's stamps.
#[test]
#[ignore = "the peer process of `calls`"]
fn peer() {
    use crate::media::udp::{Inbox, prepare};
    if std::env::var_os("LOAD_PEER").is_none() {
        return;
    }
    let socket = StdSocket::bind("127.0.0.1:0").unwrap();
    prepare(&socket).unwrap();
    widen(&socket);
    println!("PEER {}", socket.local_addr().unwrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let mut words = line.split_whitespace().map(|w| w.parse::<u64>().unwrap());
    let seconds = words.next().unwrap();
    let ports: Vec<SocketAddr> = words.map(|p| SocketAddr::from(([127, 0, 0, 1], p as u16))).collect();
    if number("FLOOD", 0) > 0 {
        let (to, rate) = (ports[0], number("FLOOD", 0) as u64);
        std::thread::spawn(move || {
            let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
            let began = Clock::now();
            let mut sent = 0;
            loop {
                while sent < began.elapsed().as_millis() as u64 * rate / 1_000 {
                    let _refused = stranger.send_to(&[0x80; 172], to);
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    let mut index = vec![usize::MAX; 65_536];
    ports.iter().enumerate().for_each(|(n, p)| index[usize::from(p.port())] = n);
    let mut inbox = Inbox::default();
    let mut last: Vec<Option<(u64, u16)>> = vec![None; ports.len()];
    let mut gaps: Vec<u32> = Vec::new();
    let (mut missing, mut received) = (0u64, 0u64);
    let mut packet = vec![0x55u8; 172];
    packet[0] = 0x80;
    packet[1] = 0;
    let began = Clock::now();
    let mut slot = 0u64;
    // Calls are spread over the 20 ms, a share each millisecond.
    while began.elapsed() < Duration::from_secs(seconds + 3) {
        let due = began.elapsed().as_millis() as u64;
        while slot <= due {
            for (n, to) in ports.iter().enumerate().filter(|(n, _)| *n as u64 % 20 == slot % 20) {
                let count = (slot / 20) as u32;
                packet[2..4].copy_from_slice(&(count as u16).to_be_bytes());
                packet[4..8].copy_from_slice(&(count * 160).to_be_bytes());
                packet[8..12].copy_from_slice(&(n as u32 + 1).to_be_bytes());
                // A tone that differs from packet to packet.
                packet[12..].iter_mut().enumerate().for_each(|(i, b)| *b = (i as u32 * 7 + count) as u8);
                let _unsent = socket.send_to(&packet, to);
            }
            slot += 1;
        }
        let measured = began.elapsed() > Duration::from_secs(3);
        loop {
            let now = now();
            let got = inbox
                .receive(&socket, now, |d| {
                    let n = index[usize::from(d.from.port())];
                    if n == usize::MAX || d.bytes.len() < 12 || d.bytes[1] & 0x7f != 0 {
                        return;
                    }
                    let at = (now - d.age).as_micros() as u64;
                    let sequence = u16::from_be_bytes([d.bytes[2], d.bytes[3]]);
                    if let Some((before, number)) = last[n].replace((at, sequence)).filter(|_| measured) {
                        received += 1;
                        gaps.push((at - before) as u32);
                        missing += u64::from(sequence.wrapping_sub(number).wrapping_sub(1));
                    }
                })
                .unwrap_or(0);
            if got == 0 {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    gaps.sort_unstable();
    let at = |share: f64| f64::from(gaps[((gaps.len() - 1) as f64 * share) as usize]) / 1_000.0;
    let within = gaps.iter().filter(|g| **g <= 40_000).count() as f64 / gaps.len() as f64;
    println!(
        "peer: {received} packets, {missing} missing; gaps: median {:.1} ms, 99 % {:.1}, 99.9 % {:.1}, largest {:.1}; {:.3} % within 40 ms",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        100.0 * within
    );
}

#[allow(clippy::disallowed_methods)] // raw stamps are compared with the raw clock
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[allow(unsafe_code)] // setsockopt with an int
fn widen(socket: &StdSocket) {
    use std::os::fd::AsRawFd;
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF, libc::SO_RCVBUFFORCE] {
        let size: libc::c_int = 16 << 20;
        // SAFETY: one int and its length.
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const size).cast(), 4) };
    }
}
