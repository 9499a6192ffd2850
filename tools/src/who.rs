//! `bulkhead who`: who owns an address, a port, a core or an instant, with the line that says so.

use std::io::IsTerminal;

use bulkhead_config::Input;

use crate::compile;
use crate::error::{Error, Result};
use crate::measure::Format;

/// The answer to a question about a system, as text. Nobody's is an answer too.
///
/// # Errors
/// The system file is rejected, or the question is not understood.
pub fn who<'p>(input: impl Into<Input<'p>>, words: &[String], format: Format) -> Result<String> {
    let plan = compile::plan_for(input, format)?;
    let query = words.join(" ");
    let answer = plan.who(&query).map_err(|error| {
        Error::refused(format!("cannot answer `{query}`"), error.cause, error.remedy)
    })?;
    Ok(match format {
        Format::Human => answer.render(std::io::stdout().is_terminal()),
        Format::Json => answer.to_json(),
    })
}
