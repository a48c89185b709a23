//! Medians and spreads.

/// The value in the middle; sorts.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// Half of the range in which the middle half of the values lies; sorts.
pub fn spread(values: &mut [f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / 2.0
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
