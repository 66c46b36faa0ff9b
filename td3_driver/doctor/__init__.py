"""`td3-driver doctor`: looks whether everything that is needed is there and works."""
