//! One file for each library. A new peer is a file here, a `mod`, and a line of [`all`].

mod aliri;
mod aws;
mod azure;
mod bare;
mod gears;
mod google;
mod huskarl;
mod incumbent;
mod kube;
mod middle;
mod ours;
mod qcs;
mod static_header;

use crate::subject::{Subject, subject};

/// Returns the peers in the order of the table.
pub fn all() -> Vec<Box<dyn Subject>> {
    vec![
        subject::<bare::NoLayer>(),
        subject::<static_header::StaticHeader>(),
        subject::<ours::WithoutRetry>(),
        subject::<ours::Armed>(),
        subject::<incumbent::WithoutRetry>(),
        subject::<incumbent::WithRetry>(),
        subject::<aliri::Aliri>(),
        subject::<aws::Aws>(),
        subject::<azure::NoPolicy>(),
        subject::<azure::Azure>(),
        subject::<gears::BearerAuth>(),
        subject::<gears::AutoRefresh>(),
        subject::<google::Google>(),
        subject::<huskarl::Huskarl>(),
        subject::<kube::Kube>(),
        subject::<middle::Middle>(),
        subject::<qcs::NoLayer>(),
        subject::<qcs::Qcs>(),
    ]
}
