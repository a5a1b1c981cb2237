//! What do operators see? Logs, metrics, health.
