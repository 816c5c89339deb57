//! Sends and receives messages with descriptors over a Unix socket.
//!
//! Edge. It must not depend on what the messages mean.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{LINE_MAX, Message, ParseError, SOCKETS_MAX};

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The other side closed the connection before its message was complete.
    #[error("the other side closed the connection")]
    Closed,
    /// The message, or the number of its descriptors, is over the limit.
    #[error("a message longer than {LINE_MAX} bytes, or with more than {SOCKETS_MAX} sockets")]
    TooLong,
    /// The message is not valid.
    #[error("the message is not valid")]
    Parse(#[from] ParseError),
    /// The other side runs as another user.
    #[error("the other side runs as user {0}, not as the user of this program")]
    User(u32),
}

/// Sends `message` with copies of `sockets`.
pub async fn send(
    stream: &UnixStream,
    message: &Message,
    sockets: &[OwnedFd],
) -> Result<(), Error> {
    let line = message.to_line();
    let (mut rest, mut sockets) = (line.as_bytes(), sockets);
    while !rest.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || send_part(stream, rest, sockets)).await?;
        rest = &rest[sent..];
        sockets = &[]; // they were sent with the first part
    }
    Ok(())
}

fn send_part(stream: &UnixStream, bytes: &[u8], sockets: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets")));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Receives a message and the descriptors that came with it. They are closed if it is not valid.
pub async fn receive(stream: &UnixStream) -> Result<(Message, Vec<OwnedFd>), Error> {
    let (mut line, mut sockets) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') {
        let part = || receive_part(stream, &mut line, &mut sockets);
        if stream.async_io(Interest::READABLE, part).await? == 0 {
            return Err(Error::Closed);
        }
        if line.len() > LINE_MAX || sockets.len() > SOCKETS_MAX {
            return Err(Error::TooLong);
        }
    }
    Ok((Message::parse(&line, sockets.len())?, sockets))
}

fn receive_part(
    stream: &UnixStream,
    line: &mut Vec<u8>,
    sockets: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut buffer = [0; 1_024];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost: too many, or the limit is reached"));
    }
    line.extend_from_slice(&buffer[..received.bytes]);
    Ok(received.bytes)
}

/// Waits until the other side closes the connection, or sends what it must not send.
pub async fn closed(stream: &UnixStream) {
    let read = || Ok(recv(stream, &mut [0; 1][..], RecvFlags::DONTWAIT)?);
    // Every result ends the connection.
    stream.async_io(Interest::READABLE, read).await.map(drop).unwrap_or_default();
}

/// Returns whether the other side has closed the connection, without waiting.
pub fn is_closed(stream: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match recv(stream, &mut [0; 1][..], flags) {
        Ok((_, length)) => length == 0,
        Err(error) => error != rustix::io::Errno::AGAIN,
    }
}

/// Fails if the other side does not run as the user of this process.
pub fn check_user(stream: &UnixStream) -> Result<(), Error> {
    let user = stream.peer_cred()?.uid();
    match user == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err(Error::User(user)),
    }
}
