//! Datagrams in batches, with the time at which the kernel took each from the network.
//!
//! A call's socket is looked at once each packet time. One `recvmmsg` then fetches all that came, and the kernel's own time
//! stamps keep the jitter and the round trip exact, although nobody was woken when a packet arrived. Buffers are shared by all
//! calls of a pacer.
#![allow(unsafe_code)] // recvmmsg and setsockopt have no safe form in the standard library; every use says why it holds

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Longest datagram that is read; a longer one is cut and then refused.
pub const DATAGRAM_MAX_BYTES: usize = 2_048;
/// Datagrams that one look fetches: a packet time brings one, or two short ones.
pub const BATCH_DATAGRAMS: usize = 4;
/// A time stamp older than this, in milliseconds, tells of a clock that was set: the datagram counts as just arrived.
const AGE_MAX_MS: u64 = 5_000;

/// One datagram.
#[derive(Clone, Copy)]
pub struct Datagram<'a> {
    /// As it came.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub from: SocketAddr,
    /// How long it has waited for us.
    pub age: Duration,
}

impl std::fmt::Debug for Datagram<'_> {
    /// Never the bytes: they are audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Datagram({} bytes from {}, {:?} ago)", self.bytes.len(), self.from, self.age)
    }
}

pub use system::{Inbox, connect, disconnect, prepare};

#[cfg(target_os = "linux")]
mod system {
    use std::mem::{MaybeUninit, size_of};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::AsRawFd;

    use super::{AGE_MAX_MS, BATCH_DATAGRAMS, DATAGRAM_MAX_BYTES, Datagram, Duration, SocketAddr, UdpSocket, io};

    /// Room for one `timespec` in a control message, aligned as the kernel wants it.
    #[derive(Clone, Copy)]
    #[repr(C, align(8))]
    struct Control([u8; 64]);

    /// Room for what one look fetches.
    pub struct Inbox {
        bytes: Vec<[u8; DATAGRAM_MAX_BYTES]>,
        addresses: Vec<libc::sockaddr_storage>,
        controls: Vec<Control>,
    }

    impl std::fmt::Debug for Inbox {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Inbox")
        }
    }

    impl Default for Inbox {
        fn default() -> Self {
            // SAFETY: `sockaddr_storage` is plain numbers, for which all zeros are a value.
            let nobody: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
            Self {
                bytes: vec![[0; DATAGRAM_MAX_BYTES]; BATCH_DATAGRAMS],
                addresses: vec![nobody; BATCH_DATAGRAMS],
                controls: vec![Control([0; 64]); BATCH_DATAGRAMS],
            }
        }
    }

    impl Drop for Inbox {
        fn drop(&mut self) {
            self.bytes.iter_mut().for_each(|bytes| zeroize::Zeroize::zeroize(&mut bytes[..]));
        }
    }

    impl Inbox {
        /// Hands over what waits, at most [`BATCH_DATAGRAMS`], and tells how many there were. Never blocks. `wall` is the wall
        /// clock's time since 1970, against which the kernel's stamps are read.
        pub fn receive(&mut self, socket: &UdpSocket, wall: Duration, mut each: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
            // SAFETY: an array of plain structs of numbers and pointers, for which all zeros are a value.
            let mut iovecs: [libc::iovec; BATCH_DATAGRAMS] = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: as above.
            let mut headers: [libc::mmsghdr; BATCH_DATAGRAMS] = unsafe { MaybeUninit::zeroed().assume_init() };
            let rooms = self.bytes.iter_mut().zip(&mut self.addresses).zip(&mut self.controls);
            for ((header, iovec), ((bytes, address), control)) in headers.iter_mut().zip(&mut iovecs).zip(rooms) {
                iovec.iov_base = bytes.as_mut_ptr().cast();
                iovec.iov_len = bytes.len();
                header.msg_hdr.msg_iov = iovec;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
                header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = control.0.len();
            }
            let batch = u32::try_from(BATCH_DATAGRAMS).unwrap_or(1);
            let got = loop {
                // SAFETY: every header points at buffers of the stated lengths, which live until the end of this function and are
                // touched by nobody else meanwhile; the socket is open as long as its reference.
                let got = unsafe {
                    libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), batch, libc::MSG_DONTWAIT, std::ptr::null_mut())
                };
                match usize::try_from(got) {
                    Ok(got) => break got,
                    Err(_) => match io::Error::last_os_error() {
                        error if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                        error if error.kind() == io::ErrorKind::Interrupted => {}
                        error => return Err(error),
                    },
                }
            };
            for ((header, bytes), address) in headers.iter().take(got).zip(&self.bytes).zip(&self.addresses) {
                let length = usize::try_from(header.msg_len).unwrap_or(0);
                let Some(from) = address_of(address) else { continue };
                let age = stamp_of(&header.msg_hdr).map_or(Duration::ZERO, |at| wall.saturating_sub(at));
                let age = if age > Duration::from_millis(AGE_MAX_MS) { Duration::ZERO } else { age };
                each(Datagram { bytes: bytes.get(..length).unwrap_or_default(), from, age });
            }
            Ok(got)
        }
    }

    /// The kernel's time stamp, since 1970.
    fn stamp_of(header: &libc::msghdr) -> Option<Duration> {
        // SAFETY: the kernel filled this header; the macros walk the control buffer that it points at, within the length it
        // left there.
        let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !control.is_null() {
            // SAFETY: a non-null result of these macros points at a whole `cmsghdr` inside the buffer.
            let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
                // SAFETY: this kind of message carries a `timespec`; read unaligned, so no alignment is assumed.
                let at: libc::timespec = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(control).cast()) };
                return Some(Duration::new(u64::try_from(at.tv_sec).ok()?, u32::try_from(at.tv_nsec).ok()?));
            }
            // SAFETY: as for the first.
            control = unsafe { libc::CMSG_NXTHDR(header, control) };
        }
        None
    }

    fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which struct the kernel wrote; the storage is large and aligned enough for each.
                let v4: &libc::sockaddr_in = unsafe { &*std::ptr::from_ref(storage).cast() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6: &libc::sockaddr_in6 = unsafe { &*std::ptr::from_ref(storage).cast() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    fn length_of<T>() -> libc::socklen_t {
        libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
    }

    /// Makes a socket ready: never blocking, with the kernel's time stamps.
    pub fn prepare(socket: &UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let on: libc::c_int = 1;
        // SAFETY: the option's value is one int, and its length is given.
        let done = unsafe {
            let value = std::ptr::from_ref(&on).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, value, length_of::<libc::c_int>())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// From now on only datagrams from `to` arrive. True: it is so.
    pub fn connect(socket: &UdpSocket, to: SocketAddr) -> io::Result<bool> {
        // A port that the kernel chose would be lost with `disconnect`; nobody configures such ports but tests.
        socket.connect(to).map(|()| true)
    }

    /// Undoes `connect`: datagrams from anywhere arrive again. Only of a socket that was bound to a port by number: the kernel
    /// takes back one that it chose itself.
    pub fn disconnect(socket: &UdpSocket) -> io::Result<()> {
        // SAFETY: plain numbers.
        let mut nowhere: libc::sockaddr = unsafe { MaybeUninit::zeroed().assume_init() };
        nowhere.sa_family = libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or(0);
        // SAFETY: the address lives through the call and its length is given; AF_UNSPEC dissolves the association (connect(2)).
        let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length_of::<libc::sockaddr>()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{BATCH_DATAGRAMS, DATAGRAM_MAX_BYTES, Datagram, Duration, SocketAddr, UdpSocket, io};

    /// Room for one datagram.
    #[derive(Debug)]
    pub struct Inbox(Vec<u8>);

    impl Default for Inbox {
        fn default() -> Self {
            Self(vec![0; DATAGRAM_MAX_BYTES])
        }
    }

    impl Inbox {
        /// As on Linux, but a datagram counts as just arrived.
        pub fn receive(&mut self, socket: &UdpSocket, _: Duration, mut each: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
            for n in 0..BATCH_DATAGRAMS {
                match socket.recv_from(&mut self.0) {
                    Ok((length, from)) => {
                        each(Datagram { bytes: self.0.get(..length).unwrap_or_default(), from, age: Duration::ZERO });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(n),
                    Err(error) => return Err(error),
                }
            }
            Ok(BATCH_DATAGRAMS)
        }
    }

    /// Makes a socket ready: never blocking.
    pub fn prepare(socket: &UdpSocket) -> io::Result<()> {
        socket.set_nonblocking(true)
    }

    /// Sockets are not connected here: not every system can undo it.
    pub fn connect(_: &UdpSocket, _: SocketAddr) -> io::Result<bool> {
        Ok(false)
    }

    /// Nothing to undo.
    pub fn disconnect(_: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn wall() -> Duration {
        Duration::from_millis(u64::try_from(SystemClock.now().0).unwrap())
    }

    #[test]
    fn what_waits_is_fetched_in_one_look_with_its_sender_and_its_age() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (Ok(ours), Ok(theirs)) = (UdpSocket::bind(any), UdpSocket::bind(any)) else { continue };
            prepare(&ours).unwrap();
            // The first socket of all that asks for stamps switches them on; the kernel takes a moment.
            std::thread::sleep(Duration::from_millis(30));
            let mut inbox = Inbox::default();
            assert_eq!(inbox.receive(&ours, wall(), |_| panic!()).unwrap(), 0);
            for n in 0..3u8 {
                theirs.send_to(&vec![n; 100 * usize::from(n)], ours.local_addr().unwrap()).unwrap();
            }
            theirs.send_to(&[7; 5_000], ours.local_addr().unwrap()).unwrap();
            std::thread::sleep(Duration::from_millis(40));
            let mut got = Vec::new();
            let from = theirs.local_addr().unwrap();
            let count = inbox
                .receive(&ours, wall(), |datagram| {
                    assert_eq!(datagram.from, from);
                    assert!((30..2_000).contains(&datagram.age.as_millis()), "{:?}", datagram.age);
                    got.push((datagram.bytes.len(), datagram.bytes.first().copied()));
                })
                .unwrap();
            assert_eq!(count, 4);
            assert_eq!(got, [(0, None), (100, Some(1)), (200, Some(2)), (DATAGRAM_MAX_BYTES, Some(7))]);
        }
    }

    #[test]
    fn a_connected_socket_hears_nobody_else_until_it_is_disconnected() {
        let any = "127.0.0.1:0";
        let (peer, stranger) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let ours = (28_000..29_000).find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).unwrap();
        prepare(&ours).unwrap();
        let to = ours.local_addr().unwrap();
        let mut inbox = Inbox::default();
        ours.connect(peer.local_addr().unwrap()).unwrap();
        peer.send_to(&[1], to).unwrap();
        let _unheard = stranger.send_to(&[2], to);
        let mut got = Vec::new();
        inbox.receive(&ours, wall(), |datagram| got.extend_from_slice(datagram.bytes)).unwrap();
        assert_eq!(got, [1]);
        disconnect(&ours).unwrap();
        stranger.send_to(&[3], to).unwrap();
        inbox.receive(&ours, wall(), |datagram| got.extend_from_slice(datagram.bytes)).unwrap();
        assert_eq!((got, ours.local_addr().unwrap()), (vec![1, 3], to));
    }
}
