//! An `async` closure that captures. The compiler finds this after the errors of types.

use tower_refresh::{Credentials, Renewal, TokenSet, source_fn};

fn async_closure_that_borrows_a_capture() {
    let token = String::from("sesame");
    Credentials::new(source_fn(async move |_| TokenSet::bearer(token.as_str())));
}

fn async_closure_that_clones_a_capture_inside() {
    let token = String::from("sesame");
    Credentials::new(async move |_: Renewal| {
        let token = token.clone();
        TokenSet::bearer(token)
    });
}

fn main() {}
