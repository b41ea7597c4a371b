//! Why a stream or a connection ended.

use std::io;

use super::Reason;

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Us,
    Peer,
}

/// Why a stream or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `RST_STREAM`.
    #[error("the stream was reset: {0}")]
    Reset(Reason, By),
    /// `GOAWAY`.
    #[error("the connection was ended: {0}")]
    GoAway(Reason, By),
    /// The connection's bytes.
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
}

impl Error {
    /// What was said.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Reset(reason, _) | Self::GoAway(reason, _) => Some(*reason),
            Self::Io(_) => None,
        }
    }

    /// Whether the peer has ended the connection.
    pub fn is_remote_go_away(&self) -> bool {
        matches!(self, Self::GoAway(_, By::Peer))
    }

    /// Whether the peer has said that it ends the stream or the connection.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::GoAway(_, By::Peer) | Self::Reset(_, By::Peer))
    }

    /// Whether the peer does not keep to the protocol.
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::GoAway(reason, By::Us) if *reason != Reason::NO_ERROR)
    }

    /// What happened to the connection's bytes.
    pub fn io(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io(kind) => Some(*kind),
            Self::Reset(..) | Self::GoAway(..) => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(kind) => kind.into(),
            other => Self::new(io::ErrorKind::ConnectionReset, other),
        }
    }
}
