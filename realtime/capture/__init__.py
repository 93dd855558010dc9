"""What the sources are made of: reading devices and files, resampling, and when a sample was captured.

OpenCV is loaded before PyAV, here and wherever else PyAV is. Both wheels bring a library of the window system
under the same name, and the first one loaded serves both: PyAV's would look for the connection of OpenCV's
window where it is not, and for ever.
"""

import cv2  # noqa: F401
