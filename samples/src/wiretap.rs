//! Looks at the packets of a pod: how many there are, and how many have a text in them that nobody outside should be
//! able to read. What goes over the loopback interface, between a proxy and its application, is not looked at.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_ALL`, in network order as the kernel wants it.
const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;

/// Two Ethernet addresses; all zero on the loopback interface.
const ADDRESSES: usize = 12;

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Packets, in and out.
    pub packets: u64,
    /// Those that have the text in them.
    pub marked: u64,
}

/// Counts packets until the process ends.
#[derive(Debug, Default)]
pub struct Wiretap {
    packets: AtomicU64,
    marked: AtomicU64,
}

impl Wiretap {
    /// Begins to look for a text.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, and without a text.
    pub fn start(text: &str) -> io::Result<Arc<Self>> {
        if text.is_empty() {
            return Err(io::Error::other("--wiretap: no text to look for"));
        }
        let socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERY_PROTOCOL)))
                .map_err(|e| io::Error::new(e.kind(), format!("cannot look at packets: {e}")))?;
        let wiretap = Arc::new(Self::default());
        let (seen, text) = (Arc::clone(&wiretap), text.as_bytes().to_vec());
        std::thread::Builder::new().name("wiretap".into()).spawn(move || {
            let mut packet = vec![0; 70_000];
            let mut socket = socket;
            loop {
                match socket.read(&mut packet) {
                    Ok(length) => seen.look(&packet[..length], &text),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::error!(%error, "no more packets");
                        return;
                    }
                }
            }
        })?;
        Ok(wiretap)
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            packets: self.packets.load(Ordering::Relaxed),
            marked: self.marked.load(Ordering::Relaxed),
        }
    }

    fn look(&self, packet: &[u8], text: &[u8]) {
        if packet.len() < ADDRESSES || packet[..ADDRESSES].iter().all(|byte| *byte == 0) {
            return;
        }
        self.packets.fetch_add(1, Ordering::Relaxed);
        if packet.windows(text.len()).any(|window| window == text) {
            self.marked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_the_wire_are_searched_and_those_of_the_loopback_are_not() {
        let wiretap = Wiretap::default();
        let wire = [&[7; ADDRESSES][..], b"....secret...."].concat();
        let loopback = [&[0; ADDRESSES][..], b"....secret...."].concat();
        wiretap.look(&wire, b"secret");
        wiretap.look(&wire, b"other");
        wiretap.look(&loopback, b"secret");
        wiretap.look(b"short", b"secret");
        assert_eq!(wiretap.seen(), Seen { packets: 2, marked: 1 });
    }
}
