# In:   BROCKETT_CUDA = OFF | ON | AUTO
# Out:  BROCKETT_HAVE_CUDA, BROCKETT_CUDA_WHY (words for the log)
set(BROCKETT_HAVE_CUDA OFF)
if(BROCKETT_CUDA STREQUAL "AUTO")
  set(BROCKETT_CUDA_WHY "off (this release has no CUDA plugin)")
elseif(BROCKETT_CUDA)
  message(FATAL_ERROR "BROCKETT_CUDA=${BROCKETT_CUDA}, but the CUDA plugin is not part of brockett ${PROJECT_VERSION}. "
                      "Configure with BROCKETT_CUDA=OFF (the default); everything then runs on the CPU.")
else()
  set(BROCKETT_CUDA_WHY "off")
endif()
