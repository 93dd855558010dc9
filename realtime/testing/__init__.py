"""The test kit: fakes for absent hardware, faults as data, contract suites. Never imported live."""
