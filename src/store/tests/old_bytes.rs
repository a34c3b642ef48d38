//! Law 4, old bytes speak: every version of a record or a log line ever written decodes.
