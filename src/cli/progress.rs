//! Progress on a terminal, and only once work has taken a while.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Work that takes less is not reported.
const PATIENCE: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);

/// A line on the terminal that says what is being done. It goes when this is dropped.
pub(super) struct Progress {
    work: Option<(Sender<String>, JoinHandle<()>)>,
}

impl Progress {
    /// Nothing is drawn where standard error is no terminal.
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress { work: None };
        }
        let (sender, receiver) = mpsc::channel::<String>();
        let draw = move || {
            let start = Instant::now();
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            let mut shown = false;
            loop {
                match receiver.recv_timeout(TICK) {
                    Ok(message) => bar.set_message(message),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if !shown && start.elapsed() > PATIENCE {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    shown = true;
                }
                bar.tick();
            }
            bar.finish_and_clear();
        };
        Progress {
            work: Some((sender, thread::spawn(draw))),
        }
    }

    /// What is being done from now on.
    pub fn say(&self, what: impl Into<String>) {
        if let Some((sender, _)) = &self.work {
            let _ = sender.send(what.into());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.work.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}
