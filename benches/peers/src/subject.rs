//! A peer whose type is erased, so that a list can hold all of them.

use std::marker::PhantomData;

use tokio::runtime::Runtime;

use crate::peer::{About, BoxError, Peer, Scenario};
use crate::report::{Cell, Event};
use crate::scenarios::attach::{self, Attach};
use crate::scenarios::{cold, dropped, failing, late};

pub trait Subject {
    fn about(&self) -> &'static About;

    /// Prepares the measurement of requests with this number of headers.
    fn attach(&self, runtime: &Runtime, headers: usize) -> Result<Attach, BoxError>;

    /// Counts token requests.
    fn count(&self, runtime: &Runtime, scenario: Scenario) -> Cell<Event>;
}

pub fn subject<P: Peer>() -> Box<dyn Subject> {
    Box::new(Erased::<P>(PhantomData))
}

struct Erased<P>(PhantomData<P>);

impl<P: Peer> Subject for Erased<P> {
    fn about(&self) -> &'static About {
        const { &P::ABOUT }
    }

    fn attach(&self, runtime: &Runtime, headers: usize) -> Result<Attach, BoxError> {
        attach::prepare::<P>(runtime, headers)
    }

    fn count(&self, runtime: &Runtime, scenario: Scenario) -> Cell<Event> {
        if let Some(reason) = P::ABOUT.skips(scenario) {
            return Cell::NotApplicable(reason.to_owned());
        }
        let result = match scenario {
            Scenario::Cold => runtime.block_on(cold::run::<P>()),
            Scenario::Failing => runtime.block_on(failing::run::<P>()),
            Scenario::Dropped => runtime.block_on(dropped::run::<P>()),
            Scenario::Late => runtime.block_on(late::run::<P>()),
        };
        result.into()
    }
}
