//! Signals: how a container, its service or a person stops this program.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::notice::{Notice, Signal};

/// Tells of each SIGTERM and SIGINT from now on, the second as well as the first.
pub fn watch(notices: mpsc::Sender<Notice>) -> io::Result<JoinHandle<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                Some(()) = terminate.recv() => Signal::Terminate,
                Some(()) = interrupt.recv() => Signal::Interrupt,
                else => return,
            };
            if notices.send(Notice::Signal(signal)).await.is_err() {
                return;
            }
        }
    }))
}
