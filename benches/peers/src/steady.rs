//! The chart of a steady load, from a file of samples.

use std::fs;

use serde::Deserialize;

use crate::peer::BoxError;
use crate::svg::{Lines, Series, lines};

#[derive(Deserialize)]
struct Samples {
    series: Vec<Sampled>,
}

#[derive(Deserialize)]
struct Sampled {
    name: String,
    /// Milliseconds since the beginning, and the latency in microseconds.
    points: Vec<(f64, f64)>,
}

pub fn draw(samples: &str, picture: &str) -> Result<(), BoxError> {
    let samples: Samples = serde_json::from_slice(&fs::read(samples)?)?;
    let series = samples.series.iter();
    let series: Vec<_> = series.map(|it| Series { name: &it.name, points: &it.points }).collect();
    let chart = Lines {
        title: "Latency of a steady load while tokens expire",
        subtitle: "Each request is a sample. Lower is better.",
        x_axis: "time in milliseconds",
        y_axis: "latency in microseconds",
        logarithmic: true,
        series: &series,
    };
    Ok(fs::write(picture, lines(&chart))?)
}
