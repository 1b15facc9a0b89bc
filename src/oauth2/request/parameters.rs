//! The parameters of a request, before a dialect is applied.

use std::fmt;

use crate::token::Secret;

/// The parameters of a request, by the names that they have in the RFC.
#[derive(Clone, Default)]
pub(in crate::oauth2) struct Parameters(Vec<Parameter>);

#[derive(Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) value: Secret,
    /// True if the dialect has named it, so that the name is the server's and the value a secret.
    pub(super) is_from_previous: bool,
}

impl Parameters {
    pub(in crate::oauth2) fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.add(name, value, false);
    }

    /// Adds a parameter of the dialect's `parameters_from_previous`.
    pub(super) fn push_from_previous(&mut self, name: &str, value: &str) {
        self.add(name, value, true);
    }

    fn add(&mut self, name: impl Into<String>, value: impl Into<String>, is_from_previous: bool) {
        self.0.push(Parameter { name: name.into(), value: Secret::new(value), is_from_previous });
    }

    pub(in crate::oauth2) fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    pub(in crate::oauth2) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|parameter| parameter.name == name && !parameter.is_from_previous)
            .map(|parameter| parameter.value.expose())
    }

    /// Returns the values of a parameter that may be repeated.
    pub(in crate::oauth2) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |parameter| parameter.name == name);
        named.map(|parameter| parameter.value.expose())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut parameters = Self::default();
        pairs.into_iter().for_each(|(name, value)| parameters.push(name, value));
        parameters
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|parameter| &parameter.name)).finish()
    }
}
