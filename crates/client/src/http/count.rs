//! Counts the bytes of requests, heads included, as they leave for the socket (or for TLS).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Bytes sent, shared by all connections of an agent.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Stands last in the chain of connectors.
#[derive(Debug)]
pub(super) struct CountingConnector(pub(super) Counter);

#[derive(Debug)]
pub(super) struct CountingTransport<T> {
    inner: T,
    counter: Counter,
}

impl<T: Transport> Connector<T> for CountingConnector {
    type Out = CountingTransport<T>;

    fn connect(
        &self,
        _details: &ConnectionDetails,
        chained: Option<T>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| CountingTransport {
            inner,
            counter: self.0.clone(),
        }))
    }
}

impl<T: Transport> Transport for CountingTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.counter.0.fetch_add(amount as u64, Ordering::Relaxed);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
