"""A service that answers texts for any number of tasks from one bundle, over HTTP."""
