//! Progress bars on standard error, where it is a terminal: one for the phase, and one for each thing that moves.

use firn_client::progress::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const PHASE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const ITEM: &str = "  {prefix} {wide_bar} {bytes}/{total_bytes}";

/// A bar of bytes; draws nothing where nobody watches.
pub(crate) struct Bar {
    visible: bool,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: Option<MultiProgress>,
    phase: Option<ProgressBar>,
    /// By name.
    items: HashMap<String, ProgressBar>,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            visible: !quiet && std::io::stderr().is_terminal(),
            quiet,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, style: &str, name: &str, total: u64) -> ProgressBar {
        let bars = self.bars.get_or_insert_with(|| {
            MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))
        });
        let bar = bars.add(ProgressBar::new(total));
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        if let Some(bars) = &self.bars {
            bars.remove(bar);
        }
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        if !self.visible {
            return;
        }
        let mut state = self.state();
        let bar = state.add(PHASE, what, total);
        bar.enable_steady_tick(Duration::from_millis(200));
        state.phase = Some(bar);
    }

    fn expect(&self, bytes: u64) {
        if let Some(bar) = &self.state().phase {
            bar.inc_length(bytes);
        }
    }

    fn advance(&self, bytes: u64) {
        if self.visible
            && let Some(bar) = &self.state().phase
        {
            bar.inc(bytes);
        }
    }

    fn item_begin(&self, name: &str, total: u64) {
        if !self.visible {
            return;
        }
        let mut state = self.state();
        let bar = state.add(ITEM, name, total);
        if let Some(same) = state.items.insert(name.to_owned(), bar) {
            state.remove(&same);
        }
    }

    fn item_at(&self, name: &str, done: u64) {
        if self.visible
            && let Some(bar) = self.state().items.get(name)
        {
            bar.set_position(done);
        }
    }

    fn item_end(&self, name: &str) {
        let mut state = self.state();
        if let Some(bar) = state.items.remove(name) {
            state.remove(&bar);
        }
    }

    fn end(&self) {
        let mut state = self.state();
        let items: Vec<ProgressBar> = state.items.drain().map(|(_, bar)| bar).collect();
        for bar in items.iter().chain(&state.phase) {
            state.remove(bar);
        }
        *state = State::default();
    }

    fn note(&self, text: &str) {
        match &self.state().bars {
            Some(bars) => bars.suspend(|| eprintln!("note: {text}")),
            None if !self.quiet => eprintln!("note: {text}"),
            None => {}
        }
    }
}
