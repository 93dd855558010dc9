"""The test kit: fakes for hardware that is not there, faults as data, contract suites. Never imported live."""
